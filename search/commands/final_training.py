"""From an exported configuration to a trained model: here, or on a node of the cluster when only that has GPUs.

Imports what a step needs when it runs.
"""

import math
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from search.config import StudyConfig
from search.errors import ConfigurationError
from search.paths import StudyPaths
from trainable import ImageTrainable

if TYPE_CHECKING:
    from search.view.progress import View


def retrain_file(path: Path, view: "View") -> Path:
    """Train an exported configuration: in its run, or in a folder of its own where it was copied to."""
    from search.lock import exclusive

    StudyConfig.load(path, (), ImageTrainable.sections)
    beside = StudyPaths(path.absolute().parent)
    folder = beside if beside.ledger.exists() else StudyPaths(path.absolute().with_suffix(""))
    folder.root.mkdir(exist_ok=True)
    with exclusive(folder.lock), view:
        retrain_exported(path, folder, view)
    return folder.final


def retrain_exported(best: Path, paths: StudyPaths, view: "View", *, on_cluster: bool = False) -> None:
    """Train what an exported configuration says into `paths.final`.

    Args:
        best: The configuration.
        paths: Of a run, or of a folder beside the configuration.
        view: Sees how far it is.
        on_cluster: Where trials used GPUs of the cluster and this machine has none, let a node of it do the work.
    """
    config: Any = ImageTrainable().settled(StudyConfig.load(best, (), ImageTrainable.sections), None)
    prepared = ImageTrainable().prepare(config, {}, paths.root, view.preparing)
    _check_same_images(config, prepared, paths)
    plan = plan_of(config)
    recipe = {
        "model": {**config.model.model_dump(), "weights_sha256": prepared.record["weights_sha256"]},
        "hyperparameters": plan["hyperparameters"],
        "epochs": plan["epochs"],
        "learning_rates": plan["learning_rates"],
        "seed": plan["seed"],
        "view_seed": config.seed,
        "positive": prepared.context["positive"],
        "colour": config.data.colour,
        "max_pixels": config.data.max_pixels,
    }
    work = {"recipe": recipe, "gpus": config.resources.gpus_per_trial, "arrays": paths.arrays}
    view.preparing("building the network", 0, 1)
    if on_cluster and lacks_gpu(config.resources):
        _train_on_cluster(work, config.resources, paths, view)
    else:
        train(**work, result=paths.final, progress=view.preparing)


def train(
    recipe: dict[str, Any], gpus: float, arrays: Path, result: Path, progress: Callable[[str, int, int], None]
) -> None:
    """Train the final model with all of this machine; everything is told in plain values, so that a node can do it."""
    use_this_machine(gpus)
    from trainable.hyperparameters import Hyperparameters
    from trainable.retrain import Recipe, retrain
    from trainable.settings import ModelSettings

    typed = {
        "model": ModelSettings.model_validate(recipe["model"]),
        "hyperparameters": Hyperparameters.model_validate(recipe["hyperparameters"]),
    }
    retrain(Recipe(**{**recipe, **typed}), arrays, result, progress)


def lacks_gpu(resources: Any) -> bool:
    """Whether trials used GPUs of a cluster that this machine has none of."""
    from trainable.devices import visible_gpus

    return bool(resources.address) and resources.gpus_per_trial > 0 and not visible_gpus()


def _train_on_cluster(work: dict[str, Any], resources: Any, paths: StudyPaths, view: "View") -> None:
    from search.cluster import connect
    from search.errand import Errand, run_errand

    taken = {"CPU": resources.cpus_per_trial, "GPU": math.ceil(min(1, resources.gpus_per_trial))}
    with connect(resources.address):
        run_errand(Errand("final", train, work, "model.json", taken), paths, paths.final, view.preparing)


def plan_of(config: Any) -> dict[str, Any]:
    """What an exported configuration has in common with the description of the model that it was trained into."""
    from search.sampling import derive_seed

    return {
        "architecture": config.model.architecture,
        "image_size": config.data.image_size,
        "colour": config.data.colour,
        "epochs": config.recorded("trial").get("best_epoch") or config.budget.epochs,
        "seed": derive_seed(config.seed, "final"),
        "learning_rates": config.recorded("trial").get("learning_rates", []),
        "hyperparameters": config.training.model_dump(mode="json"),
    }


def _check_same_images(config: StudyConfig, prepared: Any, paths: StudyPaths) -> None:
    wanted = config.recorded("data").get("fingerprint")
    came = prepared.record["data"]["fingerprint"]
    if wanted and wanted != came:
        if not paths.ledger.exists():
            paths.split.unlink(missing_ok=True)  # of the wrong images, in a folder that is not a run's
        raise ConfigurationError(
            f"data: the configuration was found on images with fingerprint {wanted}, but these have {came}"
        )
    weights, found = (config.record or {}).get("weights_sha256"), prepared.record["weights_sha256"]
    if weights and weights != found:
        raise ConfigurationError(
            f"model.weights: the configuration was found from weights with sha256 {weights}, but these have {found}"
        )


def _own_cpus() -> int:
    """CPUs that this process may use: those of its job, where a scheduler confines it."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def use_this_machine(gpus: float) -> None:
    """TensorFlow with all cores, and one GPU where trials used any and there is one."""
    from trainable.devices import apply_devices, plan_devices, visible_gpus

    visible = visible_gpus()
    with suppress(RuntimeError):  # it runs already, with these settings
        apply_devices(plan_devices(_own_cpus(), min(1, math.ceil(gpus), len(visible)), visible))

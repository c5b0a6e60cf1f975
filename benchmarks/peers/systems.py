"""Each system as its documentation shows it, on the same task: `search(system, task, seed)` and `replay(system, …)`."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from task import (
    BATCH_SIZES,
    DEEPEST,
    EPOCHS,
    LEARNING_RATES,
    METRIC,
    REDUCTION,
    STRENGTH_STEP,
    TRIALS,
    Task,
    build,
    fit,
    note,
)

Runs = list[dict[str, Any]]  # configurations to train again: `parameters` and how many `epochs`


def ray_tune(task: Task, seed: int, runs: Runs | None) -> None:
    """A function trainable, OptunaSearch, ASHA; one CPU a trial."""
    import ray
    from ray import tune
    from ray.tune.schedulers import ASHAScheduler, FIFOScheduler
    from ray.tune.search.optuna import OptunaSearch

    def train(config: dict[str, Any]) -> None:
        config = dict(config.get("run", {"parameters": config, "epochs": EPOCHS}))
        fit(task, config["parameters"], config["epochs"], lambda epoch, value: tune.report({METRIC: value}))

    space: dict[str, Any] = {
        "learning_rate": tune.loguniform(*LEARNING_RATES),
        "batch_size": tune.choice(BATCH_SIZES),
        "augmentation_strength": tune.quniform(0.0, 1.0, STRENGTH_STEP),
        "freeze_depth": tune.randint(0, DEEPEST + 1),
    }
    if runs:
        space, search, scheduler, samples = {"run": tune.grid_search(runs)}, None, FIFOScheduler(), 1
    else:
        search, samples = OptunaSearch(seed=seed), TRIALS
        scheduler = ASHAScheduler(max_t=EPOCHS, grace_period=1, reduction_factor=REDUCTION)
    with tempfile.TemporaryDirectory() as folder:
        ray.init(include_dashboard=False, log_to_driver=False, configure_logging=False)
        tune.Tuner(
            tune.with_resources(train, {"cpu": 1}),
            param_space=space,
            tune_config=tune.TuneConfig(
                metric=METRIC, mode="max", num_samples=samples, search_alg=search, scheduler=scheduler
            ),
            run_config=tune.RunConfig(storage_path=folder, name="stock", verbose=0),
        ).fit()
        ray.shutdown()


def optuna(task: Task, seed: int, runs: Runs | None) -> None:
    """`study.optimize` in one process with all cores, and its pruner."""
    import optuna
    from optuna.pruners import NopPruner, SuccessiveHalvingPruner

    waiting = list(runs or [])

    def objective(trial: Any) -> float:
        import keras

        keras.backend.clear_session()
        if waiting:
            run = waiting.pop(0)
            parameters, epochs = run["parameters"], run["epochs"]
        else:
            parameters, epochs = suggested(trial), EPOCHS
        values: list[float] = []

        def reported(epoch: int, value: float) -> None:
            values.append(value)
            trial.report(value, epoch)
            if trial.should_prune():
                raise optuna.TrialPruned

        fit(task, parameters, epochs, reported)
        return max(values)

    def suggested(trial: Any) -> dict[str, Any]:
        return {
            "learning_rate": trial.suggest_float("learning_rate", *LEARNING_RATES, log=True),
            "batch_size": trial.suggest_categorical("batch_size", BATCH_SIZES),
            "augmentation_strength": trial.suggest_float("augmentation_strength", 0.0, 1.0, step=STRENGTH_STEP),
            "freeze_depth": trial.suggest_int("freeze_depth", 0, DEEPEST),
        }

    pruner = NopPruner() if runs else SuccessiveHalvingPruner(min_resource=1, reduction_factor=REDUCTION)
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=seed), pruner=pruner)
    study.optimize(objective, n_trials=len(runs) if runs else TRIALS)


def keras_tuner(task: Task, seed: int, runs: Runs | None) -> None:
    """Hyperband, one iteration of it; a replay through an oracle that knows the list."""
    import keras
    import keras_tuner

    def hypermodel(values: Any) -> Any:
        return build(task, suggested(values))

    def suggested(values: Any) -> dict[str, Any]:
        return {
            "learning_rate": values.Float("learning_rate", *LEARNING_RATES, sampling="log"),
            "batch_size": values.Choice("batch_size", list(BATCH_SIZES)),
            "augmentation_strength": values.Float("augmentation_strength", 0.0, 1.0, step=STRENGTH_STEP),
            "freeze_depth": values.Int("freeze_depth", 0, DEEPEST),
        }

    class Told(keras.callbacks.Callback):
        def __init__(self, parameters: dict[str, Any]):
            super().__init__()
            self.parameters = parameters

        def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
            note(self.parameters, epoch + 1, logs[METRIC])

    class Batched(keras_tuner.HyperModel):
        def build(self, values: Any) -> Any:
            return hypermodel(values)

        def fit(self, values: Any, model: Any, *arguments: Any, callbacks: Any = (), **options: Any) -> Any:
            parameters = suggested(values)
            if runs:
                options["epochs"] = next(run["epochs"] for run in runs if run["parameters"] == parameters)
            callbacks = [*callbacks, Told(parameters)]
            return model.fit(*arguments, batch_size=parameters["batch_size"], callbacks=callbacks, **options)

    class Listed(keras_tuner.Oracle):
        def populate_space(self, trial_id: str) -> dict[str, Any]:
            number = len(self.trials)
            if number >= len(runs or []):
                return {"status": keras_tuner.engine.trial.TrialStatus.STOPPED, "values": None}
            return {"status": keras_tuner.engine.trial.TrialStatus.RUNNING, "values": dict(runs[number]["parameters"])}

    objective = keras_tuner.Objective(METRIC, "max")
    with tempfile.TemporaryDirectory() as folder:
        place = {"directory": folder, "project_name": "it", "overwrite": True}
        if runs:
            oracle = Listed(objective=objective, max_trials=len(runs), seed=seed)
            tuner = keras_tuner.Tuner(oracle=oracle, hypermodel=Batched(), **place)
        else:
            tuner = keras_tuner.Hyperband(
                Batched(), objective=objective, max_epochs=EPOCHS, factor=REDUCTION, seed=seed, **place
            )
        images, labels = task.part("train")
        tuner.search(images, labels, validation_data=task.part("validation"), verbose=0)


def thawline(task: Task, seed: int, runs: Runs | None) -> None:
    """`thawline search` on a study file; a replay through the same driver with a list instead of a sampler."""
    if runs:
        from replay import replay

        return replay(task, runs)
    described = json.loads((task.folder / "task.json").read_text())["study"]
    study = Path(__file__).parents[2] / "configs" / "ct_resnet50_fast.yaml"
    with tempfile.TemporaryDirectory() as folder:
        settings = [
            f"storage={folder}",
            f"seed={seed}",
            f"data.path={described['data']['path']}",
            f"data.groups={described['data']['groups']}",
            f"data.split_file={task.folder / 'split.csv'}",  # a seed must not change the images
            f"model.weights={task.weights}",
            *os.environ.get("PEERS_SETTINGS", "").split(),
        ]
        changed = [word for each in settings for word in ("--set", each)]
        command = [sys.executable, "-m", "search.cli", "search", str(study), "--name", "it", "--quiet", *changed]
        subprocess.run(command, check=True)
        note_ledger(Path(folder) / "it")
    return None


def note_ledger(run: Path) -> None:
    """Write down the epochs that a finished study has in its ledger, counted in passes through the images."""
    from search.config import StudyConfig
    from search.events import EpochReported, from_json
    from search.ledger import read_history
    from search.paths import StudyPaths
    from search.recovery import read_entries

    heard = {}
    for entry in read_entries(StudyPaths(run).ledger):
        match from_json(entry.kind, entry.body):
            case EpochReported(number=number, epoch=epoch, repeat=0):
                heard[number, epoch] = entry.at
    parts = StudyConfig.load(StudyPaths(run).study_file).training.get("epochs_per_pass", 1)
    processes: dict[str, int] = {}
    for trial in read_history(StudyPaths(run).ledger).search_trials():
        for epoch in trial.epochs:
            process = processes.setdefault(str(trial.worker), len(processes))
            passes = {"epoch": epoch.epoch / parts, "share": 1 / parts, "at": heard[trial.number, epoch.epoch]}
            line = {"parameters": trial.parameters, **passes, "value": epoch.metrics[METRIC], "seconds": epoch.seconds}
            with Path(os.environ["PEERS_EPOCHS"]).open("a") as stream:
                stream.write(json.dumps(line | {"process": process}) + "\n")


SYSTEMS: dict[str, Callable[[Task, int, Runs | None], None]] = {
    "thawline": thawline,
    "ray_tune": ray_tune,
    "optuna": optuna,
    "keras_tuner": keras_tuner,
}

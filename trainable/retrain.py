"""The winner trained for good: once on the training images to choose its operating point, once on train +
validation.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from trainable.dataset import ImageSet, concatenate
from trainable.errors import TrialError
from trainable.hyperparameters import Hyperparameters
from trainable.memory import is_out_of_memory
from trainable.metrics import operating_point
from trainable.settings import ModelSettings
from trainable.whole_file import remove_unfinished, sha256, whole_file, write_csv, write_text

if TYPE_CHECKING:
    from trainable.network import Network
    from trainable.training import Task

DEFAULT_THRESHOLD = 0.5


@dataclass(frozen=True)
class Recipe:
    """What is to be trained and on what.

    Attributes:
        epochs: As many as gave the best validation value.
        learning_rates: The winner's, by epoch; its plateaus cannot be found again without validation images. Empty:
            the schedule of the hyperparameters, on the training loss.
        seed: Of heads, orders and dropout.
        view_seed: Of the augmentation: the study's.
        positive: Index of the positive class of two, else None.
        colour: Of the images that it is for, as is `max_pixels`, which decides what is decoded.
    """

    model: ModelSettings
    hyperparameters: Hyperparameters
    epochs: int
    learning_rates: Sequence[float]
    seed: int
    view_seed: int
    positive: int | None
    colour: str
    max_pixels: int


@dataclass(frozen=True)
class FinalPaths:
    """The files of `final/`."""

    folder: Path

    @classmethod
    def of(cls, place: Path) -> "FinalPaths":
        """Of the folder, or of the model in it."""
        return cls(place if place.is_dir() else place.parent)

    @property
    def model(self) -> Path:
        return self.folder / "model.keras"

    @property
    def description(self) -> Path:
        """What `predict` and `evaluate` must know of the model: classes, size, threshold, its sha256."""
        return self.folder / "model.json"

    @property
    def history(self) -> Path:
        return self.folder / "history.csv"

    @property
    def validation(self) -> Path:
        """Probabilities of the validation images, from the network that did not see them."""
        return self.folder / "validation.npy"

    @property
    def predictions(self) -> Path:
        return self.folder / "predictions.csv"

    @property
    def metrics(self) -> Path:
        return self.folder / "metrics.json"


def retrain(recipe: Recipe, arrays: Path, final: Path, progress: Callable[[str, int, int], None]) -> FinalPaths:
    """Train the winner and save it as `final/model.keras`.

    The first training uses the training images alone. It gives the curves of `history.csv` and the operating point: a
    threshold chosen on images the model has learnt would be worthless. The second uses train + validation, with the
    same epochs and learning rates, and is the model. Nothing here reads the test part.

    Args:
        recipe: What to train.
        arrays: Folder with the decoded parts.
        final: Folder to write into.
        progress: Is told the epochs done.

    Raises:
        TrialError: when loss or probabilities stop being finite, or memory is too small even for half a batch.
    """
    from trainable.backbone import Backbone
    from trainable.inputs import FEW
    from trainable.network import Network, NetworkKey
    from trainable.training import Task, check_finite, predict

    train, validation = ImageSet.open(arrays, "train"), ImageSet.open(arrays, "validation")
    backbone = Backbone(recipe.model, train.images.shape[1], recipe.view_seed)
    key = NetworkKey.of(recipe.hyperparameters, recipe.model, train.images.shape[-1], len(train.classes))
    network = Network(backbone, key)

    task = Task(train, validation, recipe.positive, recipe.view_seed)
    history = _fit(network, recipe, task, "training on train", progress)
    probabilities = predict(network, validation.images, FEW)
    threshold = DEFAULT_THRESHOLD
    if recipe.positive is not None:
        threshold = operating_point(validation.labels, probabilities, recipe.positive)
    everything = concatenate(train, validation)
    task = Task(everything, None, recipe.positive, recipe.view_seed)
    _fit(network, recipe, task, "training on train + validation", progress)
    check_finite(predict(network, everything.images[:FEW], FEW), "after the final training")

    description = _describe(recipe, everything, threshold)
    return save_final(FinalPaths(final), network.whole_model(), probabilities, history, description)


def _fit(
    network: "Network",
    recipe: Recipe,
    task: "Task",
    what: str,
    progress: Callable[[str, int, int], None],
    pieces: int = 1,
) -> list[dict[str, Any]]:
    """The curves of one training; where whole batches do not fit into memory, it begins again in halves of them."""
    from trainable.training import Training

    rates = recipe.learning_rates
    try:
        training = Training(
            network, recipe.hyperparameters, task, recipe.seed, recipe.epochs, learning_rates=rates, pieces=pieces
        )
        while training.epoch < recipe.epochs:
            training.run_epoch()
            progress(what, training.epoch, recipe.epochs)
        return training.history
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        if pieces > 1:
            raise TrialError(
                f"a batch of {recipe.hyperparameters.batch_size} must fit into memory to train the final model, but "
                "even half of it did not; end what else uses the memory, and start the same command again"
            ) from error
    return _fit(network, recipe, task, f"{what}, batches in halves for want of memory", progress, pieces=2)


def save_final(
    paths: FinalPaths,
    model: Any,
    probabilities: npt.NDArray[np.floating],
    history: Sequence[Mapping[str, Any]],
    description: Mapping[str, Any],
) -> FinalPaths:
    """Write what `retrain` made: a model that was there stays until the new one is whole, and `model.json`, without
    which there is no model, comes last.
    """
    remove_unfinished(paths.folder)
    with whole_file(paths.model) as temporary:
        model.save(temporary)
        paths.description.unlink(missing_ok=True)  # so that no crash leaves it beside another model
    with whole_file(paths.validation) as temporary, temporary.open("wb") as stream:
        np.save(stream, probabilities)
    write_csv(paths.history, list(history[0]), ([row.get(name, "") for name in history[0]] for row in history))
    write_json(paths.description, {**description, "sha256": sha256(paths.model)})
    return paths


def _describe(recipe: Recipe, images: ImageSet, threshold: float) -> dict[str, Any]:
    return {
        "classes": list(images.classes),
        "positive_class": None if recipe.positive is None else images.classes[recipe.positive],
        "threshold": threshold,
        "image_size": images.images.shape[1],
        "colour": recipe.colour,
        "max_pixels": recipe.max_pixels,
        "architecture": recipe.model.architecture,
        "epochs": recipe.epochs,
        "seed": recipe.seed,
        "learning_rates": list(recipe.learning_rates),
        "hyperparameters": recipe.hyperparameters.model_dump(mode="json"),
        "trained_on": {"images": len(images), "groups": len(set(images.groups))},
    }


def write_json(path: Path, document: Mapping[str, Any]) -> None:
    """Indented JSON, whole or not at all."""
    write_text(path, json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n")

"""The one fit loop, for trials, for finalists and for the final model."""

import hashlib
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from trainable.checkpoint import Checkpoint
from trainable.dataset import ImageSet
from trainable.errors import TrialError
from trainable.hyperparameters import Hyperparameters
from trainable.inputs import SCORED, Inputs, Keeping, Pictures
from trainable.memory import at_once
from trainable.metrics import scores
from trainable.network import Network


@dataclass(frozen=True)
class Task:
    """What is learnt from: images with labels, and how scores are to be read.

    Attributes:
        train: Images that gradients come from.
        validation: Images that each epoch is scored on; None when all of them are trained on.
        positive: Index of the positive class when there are two, else None.
        view_seed: Of the augmentation; the same for all trials of a study, so that they share views.
    """

    train: ImageSet
    validation: ImageSet | None
    positive: int | None
    view_seed: int

    @cached_property
    def training_pictures(self) -> Pictures:
        """The training images, to be fed to a network; made once for all trials, because every file name is hashed."""
        return self._pictures("train", self.train)

    @cached_property
    def validation_pictures(self) -> Pictures:
        """The validation images, likewise.

        Raises:
            ValueError: when there are none.
        """
        if self.validation is None:
            raise ValueError("there are no validation images")
        return self._pictures("validation", self.validation)

    def _pictures(self, part: str, images: ImageSet) -> Pictures:
        return Pictures(part, images.images, image_keys(images.files), self.view_seed)


@dataclass(frozen=True)
class EpochResult:
    """Scores of one epoch. `metrics` may hold NaN (AUC with one class); `seconds` by what they were spent on."""

    epoch: int
    metrics: dict[str, float]
    seconds: dict[str, float]
    last: bool


@dataclass
class Plateau:
    """Reduces the learning rate when a loss stops falling (Keras' ReduceLROnPlateau, with a step of at least 1e-4).

    Attributes:
        patience: In passes through the training images.
    """

    patience: int
    factor: float
    best: float = math.inf
    waited: int = 0

    def update(self, loss: float) -> float:
        """The factor for the learning rate after a pass with this loss; 1 where nothing changes."""
        if loss < self.best - 1e-4:
            self.best, self.waited = loss, 0
            return 1.0
        self.waited += 1
        if not self.patience or self.waited < self.patience:
            return 1.0
        self.waited = 0
        return self.factor


@dataclass
class Stopping:
    """Ends a training whose objective has not improved for `patience` passes; 0: never."""

    patience: int
    sign: int
    best: float = -math.inf
    waited: int = 0

    def update(self, value: float) -> bool:
        """Whether to end after a pass with this objective value."""
        if self.sign * value > self.best:
            self.best, self.waited = self.sign * value, 0
        else:
            self.waited += 1
        return bool(self.patience) and self.waited >= self.patience


@dataclass
class Training:
    """One network being trained on one task: epoch by epoch, and able to continue from a checkpoint.

    Attributes:
        seed: Of head weights, order of images and dropout, in [0, 2**32).
        objective: Metric and direction that early stopping looks at.
        pieces: Parts a batch is computed in, one after the other, when memory is short; above 1, scoring spares memory
            as well.
        keeping: Where features of the frozen part are kept; None: nowhere.
        learning_rates: When given, the learning rate of each epoch, instead of reducing it on plateaus.
    """

    network: Network
    hyperparameters: Hyperparameters
    task: Task
    seed: int
    epochs: int
    objective: tuple[str, str] = ("val_loss", "minimize")
    learning_rates: Sequence[float] = ()
    keeping: Keeping | None = None
    pieces: int = 1
    epoch: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        chosen = self.hyperparameters
        self.network.reset(chosen, self.seed)
        self._plateau = Plateau(chosen.plateau_patience, chosen.plateau_factor)
        sign = 1 if self.objective[1] == "maximize" else -1
        self._stopping = Stopping(chosen.early_stopping_patience, sign)
        self._class_weights = class_weights(self.task.train.labels, self.network.key.classes, chosen.class_weights)
        self._step_seconds = 0.0
        self._inputs = Inputs(self.network, chosen, self.keeping, sparing=self.pieces > 1)

    def restore(self, checkpoint: Checkpoint) -> None:
        """Continue after the checkpoint's epoch.

        Raises:
            ValueError: when it is not of this network.
        """
        self.network.load(dict(checkpoint.arrays))
        values = checkpoint.values
        self.network.learning_rate = values["learning_rate"]
        self._plateau = Plateau(**values["plateau"])
        self._stopping = Stopping(**values["stopping"])
        self.history = list(values["history"])
        self.epoch = checkpoint.epoch

    def checkpoint(self) -> Checkpoint:
        """All that `restore` needs, after the epoch just done."""
        values = {
            "learning_rate": self.network.learning_rate,
            "plateau": asdict(self._plateau),
            "stopping": asdict(self._stopping),
            "history": list(self.history),
        }
        return Checkpoint(self.epoch, self.network.state(), values)

    @property
    def best_epoch(self) -> int | None:
        """Where the objective was best so far, the earliest of equals; None without any finite value."""
        metric, direction = self.objective
        sign = 1 if direction == "maximize" else -1
        values = {row["epoch"]: sign * row.get(metric, math.nan) for row in self.history}
        finite = {epoch: value for epoch, value in values.items() if math.isfinite(value)}
        return max(finite, key=lambda epoch: (finite[epoch], -epoch), default=None)

    def run_epoch(self) -> EpochResult:
        """Train one epoch and score it.

        Raises:
            TrialError: when a loss or a probability is NaN or infinite, naming the epoch.
        """
        epoch = self.epoch + 1
        if self.learning_rates:
            self.network.learning_rate = self.learning_rates[min(epoch, len(self.learning_rates)) - 1]
        learning_rate = self.network.learning_rate
        began = time.perf_counter()
        metrics = self._train(epoch)
        trained = time.perf_counter()
        if self.task.validation is not None:
            metrics |= {f"val_{name}": value for name, value in self._validate(self.task.validation).items()}
        validated = time.perf_counter()
        seconds = {"train": trained - began, "step": self._step_seconds, "validation": validated - trained}
        metrics |= {"learning_rate": learning_rate, "trainable_share": self.network.trainable_share}
        last = self._after(epoch, metrics)
        return EpochResult(epoch, metrics, seconds, last)

    def _after(self, epoch: int, metrics: dict[str, float]) -> bool:
        self.epoch = epoch
        self.history.append({"epoch": epoch, **metrics})
        if epoch % self.hyperparameters.epochs_per_pass:  # patience is counted in passes
            return epoch >= self.epochs
        self.network.learning_rate *= self._plateau.update(metrics.get("val_loss", metrics["loss"]))
        stop = self._stopping.update(metrics[self.objective[0]]) if self.objective[0] in metrics else False
        return stop or epoch >= self.epochs

    def _train(self, epoch: int) -> dict[str, float]:
        labels, parts = self.task.train.labels, self.hyperparameters.epochs_per_pass
        number, part = 1 + (epoch - 1) // parts, (epoch - 1) % parts
        order = np.array_split(np.random.default_rng([self.seed, number]).permutation(len(labels)), parts)[part]
        take = self._inputs.training(self.task.training_pictures, number)
        probabilities = np.empty((len(labels), self.network.key.classes), np.float32)
        began = time.perf_counter()
        for step, batch in enumerate(batches(order, self.hyperparameters.batch_size)):
            given, loss = self.network.step(
                take(batch),
                labels[batch],
                self._class_weights[labels[batch]],
                (self.seed % 2**31, epoch * 100_000 + step),
                self.pieces,
            )
            if not math.isfinite(loss):
                raise TrialError(f"the loss must stay finite, but was {float(loss)} in epoch {epoch}, step {step + 1}")
            probabilities[batch] = given
        self._step_seconds = time.perf_counter() - began
        seen = np.sort(order)
        return scores(labels[seen], probabilities[seen], self.task.positive)

    def _validate(self, images: ImageSet) -> dict[str, float]:
        parts = [
            self.network.probabilities(inputs) for inputs in self._inputs.evaluation(self.task.validation_pictures)
        ]
        probabilities = np.concatenate(parts)
        check_finite(probabilities, f"after epoch {self.epoch + 1}")
        return scores(images.labels, probabilities, self.task.positive)


def check_finite(probabilities: npt.NDArray[np.floating], when: str) -> None:
    """The last step of an epoch may ruin a network whose loss was finite before; decisions would still be made of it.

    Raises:
        TrialError: when a probability is not finite.
    """
    if not np.isfinite(probabilities).all():
        raise TrialError(f"probabilities must stay finite, but some are not {when}")


def predict(network: Network, images: npt.NDArray[np.uint8], batch_size: int = SCORED) -> npt.NDArray[np.float32]:
    """Probabilities [n, classes] for images [n, height, width, channels] of 0..255."""
    size = at_once(batch_size, images.shape[1])
    parts = [
        network.probabilities(network.prefix(images[start : start + size])) for start in range(0, len(images), size)
    ]
    return np.concatenate(parts)


def batches(order: npt.NDArray[np.int64], size: int) -> Iterator[npt.NDArray[np.int64]]:
    """Consecutive pieces of `order`; the last may be smaller. Sorted inside, so that a memory map is read forwards."""
    for start in range(0, len(order), size):
        yield np.sort(order[start : start + size])


def class_weights(labels: npt.NDArray[np.int64], classes: int, rule: str) -> npt.NDArray[np.float32]:
    """[classes] weights with mean 1 over the images; all 1 unless the rule is `balanced`."""
    if rule == "none":
        return np.ones(classes, np.float32)
    counts = np.bincount(labels, minlength=classes)
    return (len(labels) / (classes * np.maximum(counts, 1))).astype(np.float32)


def image_keys(files: Sequence[str]) -> npt.NDArray[np.uint64]:
    """[n] identities that survive a change of the split or of the order of images."""
    digests = (hashlib.blake2b(file.encode("utf-8", "surrogateescape"), digest_size=8).digest() for file in files)
    return np.array([int.from_bytes(digest) for digest in digests], np.uint64)

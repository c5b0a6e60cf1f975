"""What a search needs to know of image classification: its settings, its metrics, how to prepare it, what runs a
trial.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from trainable.devices import computes_bfloat16
from trainable.hyperparameters import Hyperparameters
from trainable.settings import DataSettings, ModelSettings

if TYPE_CHECKING:
    from trainable.preparation import Prepared, Progress

SCORES = ("accuracy", "balanced_accuracy", "auc", "f1", "sensitivity", "specificity", "loss")


class ImageTrainable:
    """Fine-tunes a pre-trained network on images. Hand one to `search.run_study`.

    Attributes:
        sections: Parts of a study file that are this trainable's.
        metrics: Names that every epoch reports and an objective may be.
    """

    sections: Mapping[str, type[BaseModel]] = {
        "data": DataSettings,
        "model": ModelSettings,
        "training": Hyperparameters,
    }
    metrics: tuple[str, ...] = (*SCORES, *(f"val_{name}" for name in SCORES))

    @property
    def trial_class(self) -> type:
        """A Ray class trainable; importing it imports Ray, not TensorFlow."""
        from trainable.trial import ImageTrial

        return ImageTrial

    def settled(self, config: Any, earlier: Any | None) -> Any:
        """A configuration with a precision in the place of `auto`: all trials of a study compute in one.

        Args:
            config: With these sections.
            earlier: What the study was begun with, its sections plain, if it was.
        """
        if config.model.precision != "auto":
            return config
        if earlier:
            precision = earlier.model["precision"]
        else:
            in_bfloat16 = computes_bfloat16(config.resources.gpus_per_trial > 0)
            precision = "mixed_bfloat16" if in_bfloat16 else "float32"
        return config.model_copy(update={"model": config.model.model_copy(update={"precision": precision})})

    def prepare(self, config: Any, largest: Mapping[str, Any], folder: Path, progress: "Progress") -> "Prepared":
        """See `trainable.preparation.prepare`; `config` is a study configuration with these sections.

        Raises:
            InputError: with every problem.
        """
        from trainable.preparation import prepare  # brings the imaging libraries

        chosen = {**config.training.model_dump(), **largest}
        prepared = prepare(config.data, config.model, chosen, folder, config.seed, progress)
        return replace(prepared, context={**prepared.context, "training": config.training.model_dump(mode="json")})

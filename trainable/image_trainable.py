"""What a search needs to know of image classification: its settings, its metrics, how to prepare it, what runs a
trial.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

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
        metrics: Names that every epoch reports and an objective may be, each with the direction in which it is better.
    """

    sections: Mapping[str, type[BaseModel]] = {
        "data": DataSettings,
        "model": ModelSettings,
        "training": Hyperparameters,
    }
    metrics: Mapping[str, Literal["maximize", "minimize"]] = {
        f"{part}{name}": "minimize" if name == "loss" else "maximize" for part in ("", "val_") for name in SCORES
    }

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
            precision = earlier.model.get("precision", "float32")
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
        context = {**prepared.context, "training": config.training.model_dump(mode="json")}
        remarks = (*prepared.remarks, *_idle_gpus(config.resources.gpus_per_trial))
        return replace(prepared, context=context, remarks=remarks)


def _idle_gpus(gpus: float) -> tuple[str, ...]:
    told = (
        f"resources.gpus_per_trial: a trial computes on one GPU, so {gpus - 1:g} of the {gpus:g} that each takes lie "
        f"idle; 1 lets {gpus:g} times as many trials run at once"
    )
    return (told,) if gpus > 1 else ()

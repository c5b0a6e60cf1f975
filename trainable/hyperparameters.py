"""The typed values one trial is made of. A study file fixes them under `training`, or varies them under `space`."""

from typing import Annotated, Literal

from pydantic import Field

from trainable.settings import Section

Transform = Literal["flip_horizontal", "flip_vertical", "zoom", "shift", "rotation", "brightness", "contrast"]


class Hyperparameters(Section):
    """How one network is fine-tuned."""

    learning_rate: Annotated[float, Field(gt=0, le=10)] = 1e-3
    """Step size of the optimizer for the head, and for the backbone before `backbone_learning_rate_factor`."""
    batch_size: Annotated[int, Field(ge=1, le=4096)] = 32
    """Images per optimizer step."""
    epochs_per_pass: Annotated[int, Field(ge=1, le=1000)] = 1
    """Epochs that one pass through the training images is divided into: 3 means that an epoch takes a third of them,
    and three epochs take each once. So trials can be compared, and hopeless ones ended, before they saw every image.
    """
    augmentation_strength: Annotated[float, Field(ge=0, le=1)] = 0.5
    """0 is the identity, 1 the strongest version of every transform."""
    freeze_depth: Annotated[int, Field(ge=0)] = 4
    """Units (`model.freeze_unit`) frozen from the stem up; 0 trains everything."""
    optimizer: Literal["adam", "sgd", "rmsprop"] = "adam"
    """`adam` with `weight_decay` is AdamW; `sgd` runs with Nesterov momentum `momentum`."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Momentum of `sgd`; unused by the others."""
    weight_decay: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Decoupled: each step shrinks trainable kernels by `learning_rate * weight_decay`."""
    backbone_learning_rate_factor: Annotated[float, Field(gt=0, le=10)] = 1.0
    """The backbone's learning rate as a multiple of the head's."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of pooled features dropped before the classifier."""
    head_width: Annotated[int, Field(ge=0, le=8192)] = 0
    """Units of a hidden ReLU layer in the head; 0: none."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Probability spread evenly over all classes."""
    class_weights: Literal["balanced", "none"] = "balanced"
    """`balanced` weighs every class by the inverse of its share of the training images."""
    plateau_patience: Annotated[int, Field(ge=0)] = 3
    """Passes through the training images without a lower validation loss before the learning rate is reduced
    (ReduceLROnPlateau); 0: never."""
    plateau_factor: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """What the learning rate is multiplied by on a plateau."""
    early_stopping_patience: Annotated[int, Field(ge=0)] = 0
    """Passes without a better objective before the trial ends as completed; 0: never."""
    transforms: tuple[Transform, ...] = ("flip_horizontal", "flip_vertical", "zoom", "shift")
    """What augmentation may do."""
    views: Annotated[int, Field(ge=0)] = 0
    """Number of augmented copies of an image that passes cycle through; 0: a new one each pass."""

"""What a study file says about images and the pre-trained network: values with their bounds, nothing heavy imported."""

import re
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator, model_validator

Part = Literal["train", "validation", "test"]
# A study is resumed from any folder, and trials run in others.
AbsolutePath = Annotated[Path, AfterValidator(lambda path: path.expanduser().absolute())]
MAX_PIXELS = 50_000_000  # of an image, where a study says nothing else


class Section(BaseModel):
    """A part of a study file: unknown keys refused, values fixed once read."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)


class SplitShares(Section):
    """How the images are shared out; whole groups move together, so the shares are met as closely as groups allow."""

    train: Annotated[float, Field(gt=0, lt=1)] = 0.7
    validation: Annotated[float, Field(gt=0, lt=1)] = 0.15
    test: Annotated[float, Field(ge=0, lt=1)] = 0.15

    @model_validator(mode="after")
    def _sum_to_one(self) -> Self:
        total = self.train + self.validation + self.test
        if abs(total - 1) > 1e-6:
            raise ValueError(f"`train + validation + test == 1` must hold, but they add up to {total:g}")
        return self


class GroupPattern(Section):
    """Groups read out of file names."""

    pattern: str
    r"""Regular expression searched in `class/file`; its first group names the group, for example `Patient_(\d+)`."""

    @field_validator("pattern")
    @classmethod
    def _one_group(cls, pattern: str) -> str:
        try:
            groups = re.compile(pattern).groups
        except re.error as error:
            raise ValueError(f"must be a regular expression, but {error} in {pattern!r}") from error
        if groups < 1:
            raise ValueError(f"must hold one (group) that names the group, but {pattern!r} has none")
        return pattern


class DataSettings(Section):
    """Where the images are and how they become arrays and parts."""

    path: AbsolutePath
    """Folder with one sub-folder per class."""
    groups: Literal["near_duplicates", "none"] | GroupPattern | AbsolutePath = "near_duplicates"
    """What must not be torn apart by the split: a CSV with the columns `file` and `group`, a pattern on file names,
    clusters of near-duplicate images, or `none` (by image: leaks where a patient has several)."""
    split: SplitShares = SplitShares()
    """Shares of train, validation and test."""
    split_file: AbsolutePath | None = None
    """A given split, CSV with the columns `file` and `part`; replaces `split`."""
    image_size: Annotated[int, Field(ge=32, le=1024)] = 64
    """Height and width in pixels after resizing."""
    colour: Literal["grey", "rgb"] = "grey"
    """`grey` forces one channel first, so that the file mode cannot give the label away."""
    positive_class: str | None = None
    """The class that sensitivity, F1 and the operating point speak of when there are two; default: the first by
    name.
    """
    max_unreadable_share: Annotated[float, Field(ge=0, le=1)] = 0.05
    """Up to this share of unreadable files is skipped and listed; above it nothing starts."""
    max_pixels: Annotated[int, Field(gt=0, le=178_956_970)] = MAX_PIXELS  # Pillow refuses more, as a bomb
    """An image whose header declares more pixels is refused before it is decoded."""
    near_duplicate_distance: Annotated[int, Field(ge=0, le=16)] = 4
    """Images whose 64-bit perceptual hashes differ in at most this many bits count as near duplicates."""


class ModelSettings(Section):
    """The pre-trained network and what of it may move."""

    architecture: Literal["resnet50", "resnet101", "mobilenetv2", "vgg16", "densenet121"] = "resnet50"
    """A `keras.applications` architecture, used without its top."""
    weights: Literal["imagenet", "random"] | AbsolutePath = "imagenet"
    """`imagenet` (downloaded once by Keras), `random`, or the path of a `.weights.h5` file."""
    weights_sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None = None
    """Refuse a weights file with another sha256."""
    freeze_unit: Literal["stage", "block"] = "stage"
    """What freeze depth counts: stages from the stem up (ResNet50: 0..5) or residual blocks (0..17)."""
    batch_norm: Literal["auto", "frozen", "frozen_prefix", "train"] = "auto"
    """`frozen`: every BatchNorm of the backbone keeps statistics and weights; `frozen_prefix`: those below the freeze
    depth do; `train`: all of them train, at any depth. `auto`: `frozen`, but `train` with random weights."""
    precision: Literal["float32", "mixed_bfloat16", "auto"] = "float32"
    """Keras precision policy. `auto`: `mixed_bfloat16` if the machine that begins the study computes in it (a processor
    with AVX-512 BF16 or AMX; with `resources.gpus_per_trial`, its GPUs from Ampere on), else `float32`."""
    features: Literal["off", "auto", "all"] = "auto"
    """Whether outputs of the frozen part are kept and shared between trials; `auto`: where that pays."""
    features_dtype: Literal["float32", "float16"] = "float32"
    """How they are kept; float16 halves the bytes and rounds."""
    features_gigabytes: Annotated[float, Field(gt=0)] = 20.0
    """Most that is kept per run, and on each host that does not see the run folder; the least recently used goes."""
    xla: bool | None = None
    """Compile steps with XLA; default: off. On CPU it was measured 10 times slower, on GPU it is yours to measure."""

    @model_validator(mode="after")
    def _random_weights_need_training_statistics(self) -> Self:
        if self.weights == "random" and self.batch_norm in ("frozen", "frozen_prefix"):
            raise ValueError(
                "`batch_norm: train` (or auto) must hold when `weights: random`, because statistics of an untrained "
                f"network mean nothing, but got batch_norm: {self.batch_norm}"
            )
        return self

    @property
    def batch_norm_policy(self) -> Literal["frozen", "frozen_prefix", "train"]:
        """The policy that `auto` stands for here."""
        if self.batch_norm == "auto":
            return "train" if self.weights == "random" else "frozen"
        return self.batch_norm

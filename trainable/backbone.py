"""The pre-trained network: built once per process, cut where a freeze depth says, put back to its first weights."""

import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from functools import cache
from pathlib import Path
from typing import Any

import keras
import numpy as np

from trainable.architectures import ARCHITECTURES, POOLED
from trainable.errors import InputError
from trainable.settings import ModelSettings
from trainable.weights_check import cache_folder
from trainable.whole_file import locked, sha256


class Backbone:
    """A `keras.applications` network without its top, all of its possible cuts sharing one set of weights.

    Which weights move is decided by whoever trains; a BatchNorm uses and updates batch statistics only where it is
    called with `training=True`.

    Attributes:
        depth: Largest freeze depth; there everything but the head is frozen.
        features: Width of the pooled output.
    """

    def __init__(self, settings: ModelSettings, image_size: int, seed: int):
        """Build it and give it its weights.

        Args:
            settings: Architecture and weights.
            image_size: Height and width in pixels.
            seed: For `weights: random`, in [0, 2**32).

        Raises:
            InputError: when the weights file does not fit the architecture or cannot be had.
        """
        self.architecture = ARCHITECTURES[settings.architecture]
        self.cuts = self.architecture.cuts(settings.freeze_unit)
        self.depth = len(self.cuts)
        keras.config.set_dtype_policy(settings.precision)
        keras.utils.set_random_seed(seed)
        self.model = _build(settings, image_size)
        self._pooled = keras.layers.GlobalAveragePooling2D(name=POOLED)(self.model.output)
        self.features = int(self.model.output.shape[-1])
        if settings.batch_norm_policy == "train":
            _quicken_batch_norms(self.model)
        if settings.weights == "random":
            _silence_residuals(self.model)
        self.variables = list(self.model.variables)
        self._first = [np.asarray(variable) for variable in self.variables]

    def preprocess(self, pixels: Any) -> Any:
        """Pixels 0..255 of shape [n, height, width, 1 or 3] as this architecture was trained on, three channels."""
        module = getattr(keras.applications, self.architecture.module)
        pixels = keras.ops.cast(pixels, "float32")
        if pixels.shape[-1] == 1:
            pixels = keras.ops.repeat(pixels, 3, axis=-1)
        return module.preprocess_input(pixels)

    @cache  # noqa: B019 - one backbone per process, as long-lived as its cuts
    def prefix(self, depth: int) -> keras.Model:
        """Preprocessed images to the output of the lowest `depth` units; the identity at 0."""
        return keras.Model(self.model.input, self._cut(depth))

    @cache  # noqa: B019
    def suffix(self, depth: int) -> keras.Model:
        """What is above the prefix, pooling included: its output to features [n, features]."""
        return keras.Model(self._cut(depth), self._cut(self.depth))

    @cache  # noqa: B019
    def between(self, shallow: int, deep: int) -> keras.Model:
        """From the output of one cut to that of a deeper one."""
        return keras.Model(self._cut(shallow), self._cut(deep))

    def cut_shape(self, depth: int) -> tuple[int, ...]:
        """Shape of what a cut passes on for one image."""
        return tuple(self._cut(depth).shape[1:])

    def operations(self, depth: int) -> float:
        """Floating-point operations that the prefix takes for one image: two per weight and place it is applied at."""
        layers = self.prefix(depth).layers if depth else []
        convolutions = (layer for layer in layers if hasattr(layer, "kernel"))
        return float(sum(2 * np.prod(layer.kernel.shape) * np.prod(layer.output.shape[1:3]) for layer in convolutions))

    def output_dtype(self, depth: int) -> str:
        """Of what the prefix gives: float32 for images, else the precision policy's compute type."""
        return "float32" if depth == 0 else self._cut(depth).dtype

    def suffix_variables(self, depth: int, *, batch_norms: bool) -> list[Any]:
        """The weights above the cut that gradients may move; those of BatchNorms only if asked for."""
        layers = [] if depth == self.depth else self.suffix(depth).layers
        return [
            weight
            for layer in layers
            if batch_norms or not isinstance(layer, keras.layers.BatchNormalization)
            for weight in layer.trainable_variables
        ]

    def batch_norm_weights(self) -> list[Any]:
        """Scale and offset of every BatchNorm."""
        layers = (layer for layer in self.model.layers if isinstance(layer, keras.layers.BatchNormalization))
        return [weight for layer in layers for weight in layer.trainable_variables]

    def restore(self) -> None:
        """Put every weight back to where it was after loading."""
        for variable, value in zip(self.variables, self._first, strict=True):
            variable.assign(value)

    @property
    def parameters(self) -> int:
        """Number of weights, BatchNorm statistics included."""
        return sum(value.size for value in self._first)

    def _cut(self, depth: int) -> Any:
        if depth == 0:
            return self.model.input
        name = self.cuts[depth - 1]
        return self._pooled if name == POOLED else self.model.get_layer(name).output


def check_weights(settings: ModelSettings, image_size: int) -> None:
    """Build the network and load its weights, as every trial will.

    Raises:
        InputError: when they don't fit each other.
    """
    Backbone(settings, image_size, seed=0)


def _build(settings: ModelSettings, image_size: int) -> keras.Model:
    architecture = ARCHITECTURES[settings.architecture]
    make = getattr(keras.applications, architecture.keras_name)
    from_keras = settings.weights == "imagenet"
    try:
        with _downloading_alone(architecture.keras_name) if from_keras else nullcontext():
            model = make(
                include_top=False, weights="imagenet" if from_keras else None, input_shape=(image_size, image_size, 3)
            )
    except Exception as error:
        if not from_keras:
            raise
        raise InputError(
            f"model.weights: `imagenet` must be downloadable or whole in Keras' cache, but {error}; remove what is of "
            "it in ~/.keras/models and start again, or give the path of a .weights.h5 file instead"
        ) from error
    if isinstance(settings.weights, Path):
        _check_unchanged(settings.weights, settings.weights_sha256)
        _load(model, settings.weights, architecture.keras_name)
    return model


@contextmanager
def _downloading_alone(name: str) -> Iterator[None]:
    """Keras downloads to the final name, where another worker of this machine would read half a file."""
    mark = cache_folder() / "downloaded" / f"{name} of Keras {keras.__version__}"
    with ExitStack() as stack:
        with suppress(OSError):  # a home that may not be written to has nothing to download to either
            if not mark.exists():
                mark.parent.mkdir(parents=True, exist_ok=True)
                stack.enter_context(locked(mark.with_suffix(".lock")))
        yield
        with suppress(OSError):
            mark.touch()


def _check_unchanged(path: Path, wanted: str | None) -> None:
    """All workers of a study start from the weights that it began with; flipped bits load without a word."""
    if wanted and (came := sha256(path)) != wanted:
        raise InputError(f"model.weights: {path} must have the sha256 {wanted}, but has {came}; put the file back")


def _load(model: keras.Model, path: Path, architecture: str) -> None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a line per layer that does not fit; the error says it once
            model.load_weights(path)
    except Exception as error:  # Keras raises many kinds for one cause: the file is not of this architecture
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(
            f"model.weights: {path} must hold weights of {architecture} without its top, but loading failed: {reason}"
        ) from error


def _quicken_batch_norms(model: keras.Model) -> None:
    """Moving statistics that follow within ten steps. With Keras' 0.99 (ResNet, MobileNet 0.999) an epoch of twenty
    steps leaves them at their start, and validation measures noise.
    """
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.9


def _silence_residuals(model: keras.Model) -> None:
    """Start every residual block of an untrained ResNet as the identity: the scale of its last BatchNorm is 0 (Goyal
    et al. 2017, section 5.1). On 281 drawn slices of 32 px the training AUC of the first epoch rose from 0.55 to
    0.70.
    """
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization) and layer.name.endswith("_3_bn"):
            layer.gamma.assign(np.zeros(layer.gamma.shape))

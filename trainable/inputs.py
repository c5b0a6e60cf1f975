"""What a network's steps are fed: images through the frozen prefix, computed on the spot or taken from the store."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from trainable.augmentation import apply_view, draw_view
from trainable.features import CHUNK, CPU_SPEED, FeatureKey, FeatureStore, worth_keeping
from trainable.hyperparameters import Hyperparameters
from trainable.memory import at_once
from trainable.network import Network

# Images at a time when all of a part are scored, and where memory is short; of large ones fewer.
SCORED, FEW = 128, 16

Indices = npt.NDArray[np.int64]
Take = Callable[[Indices], Any]


@dataclass(frozen=True)
class Keeping:
    """Where and when features are kept.

    Attributes:
        identity: Of images, weights, architecture and precision; part of every file's key.
        speed: Operations per second that a worker is counted on for. A figure, not a measurement at run time, because
            computing features in other batches moves last bits, and a study must not depend on how busy a machine is.
    """

    store: FeatureStore
    identity: str
    policy: Literal["off", "auto", "all"]
    dtype: str = "float32"
    speed: float = CPU_SPEED


@dataclass(frozen=True)
class Pictures:
    """The images of one part as views are made of them.

    Attributes:
        part: Name of the part.
        images: uint8 [n, height, width, channels].
        keys: [n] identities, see `training.image_keys`.
        view_seed: Of the augmentation.
    """

    part: str
    images: npt.NDArray[np.uint8]
    keys: npt.NDArray[np.uint64]
    view_seed: int

    def pixels(self, chosen: Hyperparameters, view: int | None, indices: Any) -> Any:
        """Images [len(indices), ...] as they are, or in one view; uint8 or float32, 0..255."""
        pixels = self.images[indices]
        if view is None:
            return pixels
        drawn = draw_view(
            self.keys[indices],
            self.view_seed,
            view,
            chosen.augmentation_strength,
            chosen.transforms,
            self.images.shape[1],
        )
        return apply_view(pixels, drawn.matrices, drawn.gain, drawn.bias)


class Inputs:
    """Feeds one network in one training.

    Args:
        network: What is fed.
        chosen: What views follow from.
        keeping: Where features are kept; None: nowhere.
        sparing: Whether memory is short: features that are there are used, but none are made, and the frozen prefix and
            scoring take few images at a time.
    """

    def __init__(self, network: Network, chosen: Hyperparameters, keeping: Keeping | None, *, sparing: bool = False):
        self._sparing = sparing
        self._network = network
        self._chosen = chosen
        self._keeping = keeping if keeping and keeping.policy != "off" and network.cut else None

    def training(self, pictures: Pictures, number: int) -> Take:
        """What the network is fed in this pass through the images (from 1), by positions of images."""
        chosen = self._chosen
        if chosen.augmentation_strength == 0:
            return self._source(pictures, None, sure_of_reuse=True)
        view = (number - 1) % chosen.views if chosen.views else number - 1
        return self._source(pictures, view, sure_of_reuse=chosen.views > 0)

    def evaluation(self, pictures: Pictures) -> Iterator[Any]:
        """What the network is fed to score all images, in order, in batches."""
        take = self._source(pictures, None, sure_of_reuse=True)
        batch_size = at_once(FEW if self._sparing else SCORED, pictures.images.shape[1])
        for start in range(0, len(pictures.images), batch_size):
            yield take(np.arange(start, min(start + batch_size, len(pictures.images))))

    def _source(self, pictures: Pictures, view: int | None, sure_of_reuse: bool) -> Take:
        stored = self._stored(pictures, view, sure_of_reuse)
        if stored is not None:
            return lambda indices: stored[indices]
        return lambda indices: self._computed(pictures, view, indices)

    def _computed(self, pictures: Pictures, view: int | None, indices: Indices) -> Any:
        """What the frozen prefix gives; where memory is short, of a few images at a time."""
        size = at_once(FEW, pictures.images.shape[1]) if self._sparing else len(indices)
        parts = [
            self._network.prefix(pictures.pixels(self._chosen, view, indices[start : start + size]))
            for start in range(0, len(indices), size)
        ]
        return parts[0] if len(parts) == 1 else tf.concat(parts, 0)

    def _stored(self, pictures: Pictures, view: int | None, sure_of_reuse: bool) -> npt.NDArray[Any] | None:
        keeping, network = self._keeping, self._network
        if keeping is None:
            return None
        size = int(np.prod(network.input_shape)) * np.dtype(keeping.dtype).itemsize
        key = self._key(keeping, pictures, view)
        seconds = network.backbone.operations(network.cut) / keeping.speed
        wanted = keeping.store.has(key) or (
            not self._sparing and worth_keeping(keeping.policy, seconds, size, sure_of_reuse)
        )
        if not wanted:
            return None
        shape = (len(pictures.images), *network.input_shape)
        return keeping.store.get(key, shape, lambda array: self._fill(array, keeping, pictures, view))

    def _fill(self, array: npt.NDArray[Any], keeping: Keeping, pictures: Pictures, view: int | None) -> None:
        shallower = self._shallower(keeping, pictures, view)
        size = at_once(CHUNK, pictures.images.shape[1])
        for start in range(0, len(array), size):
            indices = np.arange(start, min(start + size, len(array)))
            if shallower is None:
                array[indices] = self._network.prefix(pictures.pixels(self._chosen, view, indices))
            else:
                depth, features = shallower
                array[indices] = self._network.continue_prefix(depth, features[indices])

    def _shallower(self, keeping: Keeping, pictures: Pictures, view: int | None) -> tuple[int, npt.NDArray[Any]] | None:
        """The deepest features below the cut that are stored, to continue from."""
        key = self._key(keeping, pictures, view)
        for depth in range(self._network.cut - 1, 0, -1):
            shape = (len(pictures.images), *self._network.backbone.cut_shape(depth))
            found = keeping.store.find(replace(key, cut=depth), shape)
            if found is not None:
                return depth, found
        return None

    def _key(self, keeping: Keeping, pictures: Pictures, view: int | None) -> FeatureKey:
        chosen = self._chosen
        drawn = None
        if view is not None:
            drawn = (pictures.view_seed, view, chosen.augmentation_strength, tuple(sorted(chosen.transforms)))
        return FeatureKey(keeping.identity, pictures.part, self._network.cut, drawn, keeping.dtype)

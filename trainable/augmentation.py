"""Augmentation strength in [0, 1] as a stateless transform: the pixels of a view depend on (image, study seed,
strength, view number) and on nothing else, so they are the same whoever computes them and whenever.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

# What each transform does at strength 1; at strength s everything is scaled by s.
FLIP_PROBABILITY = 0.5
ZOOM = 0.2  # scale factor within 1 +- this
SHIFT = 0.15  # of the side, in both directions
ROTATION = 20.0  # degrees, in both directions
BRIGHTNESS = 0.15  # of the full range 0..255, up or down
CONTRAST = 0.3  # factor within 1 +- this, about mid-grey

_CHANNELS = (
    "flip_horizontal",
    "flip_vertical",
    "zoom",
    "shift",
    "shift_vertical",
    "rotation",
    "brightness",
    "contrast",
)
FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True)
class View:
    """One augmented copy of n images, not yet applied.

    Attributes:
        matrices: [n, 8] projective transforms from output to input pixels, as TensorFlow's ImageProjectiveTransform
            takes them.
        gain: [n] factor about mid-grey.
        bias: [n] added afterwards, in grey levels of 255.
    """

    matrices: FloatArray
    gain: FloatArray
    bias: FloatArray


def draw_view(
    keys: npt.NDArray[np.uint64], seed: int, view: int, strength: float, transforms: Collection[str], image_size: int
) -> View:
    """What happens to images with these keys in this view.

    The same random numbers serve every strength: a stronger view is the same change, larger.

    Args:
        keys: [n] identities of the images.
        seed: Of the study.
        view: View number, from 0.
        strength: In [0, 1]; 0 gives the identity.
        transforms: Names of those that may act.
        image_size: Height and width in pixels.
    """
    unit = {name: _uniform(keys, seed, view, channel) for channel, name in enumerate(_CHANNELS)}
    spread = {name: strength * (2 * value - 1) for name, value in unit.items()}  # in [-strength, strength)

    def acts(name: str) -> bool:
        return name in transforms

    flips = [
        np.where(acts(name) & (unit[name] < strength * FLIP_PROBABILITY), -1.0, 1.0)
        for name in ("flip_horizontal", "flip_vertical")
    ]
    scale = 1.0 / (1.0 + ZOOM * spread["zoom"] * acts("zoom"))
    angle = np.deg2rad(ROTATION) * spread["rotation"] * acts("rotation")
    shift_x = SHIFT * image_size * spread["shift"] * acts("shift")
    shift_y = SHIFT * image_size * spread["shift_vertical"] * acts("shift")
    return View(
        matrices=_matrices(flips[0], flips[1], scale, angle, shift_x, shift_y, image_size),
        gain=(1.0 + CONTRAST * spread["contrast"] * acts("contrast")).astype(np.float32),
        bias=(255.0 * BRIGHTNESS * spread["brightness"] * acts("brightness")).astype(np.float32),
    )


def apply_view(pixels: Any, matrices: Any, gain: Any, bias: Any) -> Any:
    """Transform images: bilinear, mirrored at the border. TensorFlow tensors in and out.

    Args:
        pixels: [n, height, width, channels] uint8 or float, 0..255.
        matrices: See `View`, as are `gain` and `bias`.

    Returns:
        float32 of the same shape, within 0..255.
    """
    import tensorflow as tf

    moved = tf.raw_ops.ImageProjectiveTransformV3(
        images=tf.cast(pixels, tf.float32),
        transforms=matrices,
        output_shape=tf.shape(pixels)[1:3],
        interpolation="BILINEAR",
        fill_mode="REFLECT",
        fill_value=0.0,
    )
    gain, bias = (tf.reshape(value, [-1, 1, 1, 1]) for value in (gain, bias))
    return tf.clip_by_value((moved - 127.5) * gain + 127.5 + bias, 0.0, 255.0)


def _matrices(
    flip_x: np.ndarray,
    flip_y: np.ndarray,
    scale: np.ndarray,
    angle: np.ndarray,
    dx: np.ndarray,
    dy: np.ndarray,
    size: int,
) -> FloatArray:
    """Flip, then rotation and scale about the image's centre, then a shift: [n, 8], rows a0 a1 a2 b0 b1 b2 0 0."""
    centre = (size - 1) / 2
    a0, a1 = scale * np.cos(angle) * flip_x, -scale * np.sin(angle) * flip_y
    b0, b1 = scale * np.sin(angle) * flip_x, scale * np.cos(angle) * flip_y
    a2 = centre - a0 * centre - a1 * centre + dx
    b2 = centre - b0 * centre - b1 * centre + dy
    zero = np.zeros_like(a0)
    return np.stack([a0, a1, a2, b0, b1, b2, zero, zero], axis=1).astype(np.float32)


def _uniform(keys: npt.NDArray[np.uint64], seed: int, view: int, channel: int) -> npt.NDArray[np.float64]:
    """[n] numbers in [0, 1), one per key, by hashing. SplitMix64's finaliser (Steele, Lea, Flood 2014): counter-
    based, so nothing depends on the order of images, on batches or on threads.
    """
    with np.errstate(over="ignore"):
        state = keys.astype(np.uint64)
        for part in (seed, view, channel):
            state = _mix(state + np.uint64(0x9E3779B97F4A7C15) * np.uint64(part + 1))
    return (state >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _mix(state: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))

"""A convolution, computed on a CPU in the way that suits its shapes.

oneDNN reorders a kernel on its way in and its gradient on its way out, and where the map is small that is most of the
work; in bfloat16 it also computes gradients of kernels badly. A product of matrices takes kernels as they lie,
[height * width * channels, filters], times what each position of the map sees. ResNet50 at 64 px, bfloat16, one thread
(2026-11): a step of 16 images 427 ms with convolutions alone, 193 ms with these (`make bench-step`). Measured shape by
shape: docs/experiments.md, "gradients of kernels as products".
"""

import math
from collections.abc import Sequence
from enum import Enum, auto
from typing import Any

import tensorflow as tf


class Way(Enum):
    """How a convolution is computed."""

    CONVOLUTION = auto()
    PRODUCT = auto()
    GRADIENT_AS_PRODUCT = auto()  # the kernel's gradient alone; forwards and for the inputs it stays a convolution


def convolve(inputs: Any, kernel: Any, strides: Sequence[int], padding: str) -> Any:
    """`tf.nn.conv2d` up to rounding, and its gradients.

    Args:
        inputs: [n, height, width, channels], all but n known.
        kernel: [height, width, channels, filters] of the same type.
        strides: Four, as TensorFlow has them.
        padding: "SAME" or "VALID".
    """
    seen = [-(-side // stride) for side, stride in zip(inputs.shape[1:3], strides[1:3], strict=True)]
    on_cpu = not tf.config.get_visible_devices("GPU")  # the ways were measured with oneDNN, not with cuDNN
    match best_way(kernel.shape, seen, strides[1:3], padding, inputs.dtype) if on_cpu else Way.CONVOLUTION:
        case Way.CONVOLUTION:
            return tf.nn.conv2d(inputs, kernel, strides, padding)
        case Way.PRODUCT:
            rows = tf.reshape(kernel, [-1, kernel.shape[3]])
            return tf.reshape(tf.matmul(_patches(inputs, kernel.shape, strides), rows), [-1, *seen, kernel.shape[3]])
        case Way.GRADIENT_AS_PRODUCT:
            return _with_gradient_as_product(inputs, kernel, strides, padding)


def best_way(kernel: Sequence[int], seen: Sequence[int], strides: Sequence[int], padding: str, dtype: Any) -> Way:
    """The way that measured best.

    Args:
        kernel: Shape of the kernel, [height, width, channels, filters].
        seen: Height and width of the map that comes out.
        strides: Along height and width.
        padding: "SAME" or "VALID".
        dtype: Of inputs and kernel.
    """
    weights, positions, one_pixel = math.prod(kernel), math.prod(seen), tuple(kernel[:2]) == (1, 1)
    if one_pixel:
        return Way.PRODUCT if weights >= 2**18 and positions <= 8 * 8 else Way.GRADIENT_AS_PRODUCT
    if set(strides) != {1} or padding != "SAME" or weights < 2**18:
        return Way.CONVOLUTION
    if weights >= 2**21 and positions <= 4 * 4:
        return Way.PRODUCT
    return Way.GRADIENT_AS_PRODUCT if dtype == tf.bfloat16 and positions <= 8 * 8 else Way.CONVOLUTION


def _with_gradient_as_product(inputs: Any, kernel: Any, strides: Sequence[int], padding: str) -> Any:
    def convolved(inputs: Any, kernel: Any) -> tuple[Any, Any]:
        def gradients(upstream: Any) -> tuple[Any, Any]:
            of_inputs = tf.raw_ops.Conv2DBackpropInput(
                input_sizes=tf.shape(inputs), filter=kernel, out_backprop=upstream, strides=strides, padding=padding
            )
            patches = _patches(inputs, kernel.shape, strides)
            of_kernel = tf.matmul(patches, tf.reshape(upstream, [-1, kernel.shape[3]]), transpose_a=True)
            return of_inputs, tf.reshape(of_kernel, kernel.shape)

        return tf.nn.conv2d(inputs, kernel, strides, padding), gradients

    return tf.custom_gradient(convolved)(inputs, kernel)


def _patches(inputs: Any, kernel: Sequence[int], strides: Sequence[int]) -> Any:
    """What each position sees, [n * positions, height * width * channels], in the order of a kernel's rows."""
    (high, wide), (height, width, channels) = kernel[:2], inputs.shape[1:]
    if (high, wide) == (1, 1):
        # A pool of one pixel takes what the strides leave; `inputs[:, ::2, ::2]` takes eight times as long.
        seen = inputs if set(strides) == {1} else tf.nn.avg_pool2d(inputs, 1, strides, "VALID")
        return tf.reshape(seen, [-1, channels])
    before, after = ((high - 1) // 2, (wide - 1) // 2), (high // 2, wide // 2)
    padded = tf.pad(inputs, [[0, 0], *zip(before, after, strict=True), [0, 0]])
    size = [-1, height, width, channels]
    shifted = [tf.slice(padded, [0, row, column, 0], size) for row in range(high) for column in range(wide)]
    return tf.reshape(tf.concat(shifted, -1), [-1, high * wide * channels])

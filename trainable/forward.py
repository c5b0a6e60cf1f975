"""A network's forward pass in plain TensorFlow operations, with BatchNorms that cannot move folded into convolutions.

Keras calls each of ResNet50's 176 layers through some hundred lines of Python while a graph is traced, and computes a
BatchNorm as casts, a product and a sum over all activations. With fixed statistics it is a factor and an offset per
channel: the factor goes into the kernel, or where that is larger than what comes out, into what comes out; the offset
goes into the bias. The same function up to rounding; gradients reach the kernels through the factor. ResNet50 at 64 px,
depth 0, one thread (2026-11): tracing and first step 4.5 s with Keras' layers, 2.4 s with these; a step of 32 images
769 and 740 ms, in bfloat16 535 and 498 ms.
"""

import math
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from trainable.convolution import convolve

Operation = Callable[..., Any]

BATCH = 32  # images, for which it is decided where a factor goes; batches of every size share a graph


def forward(model: keras.Model) -> Callable[[Any], Any]:
    """The function that a functional model computes while nothing in it but kernels and biases moves.

    Args:
        model: BatchNorms are used with their moving statistics. Layers that are not known here are called as they are.
    """
    folded = _folded_batch_norms(model)
    gone = {id(batch_norm) for batch_norm in folded.values()}

    def operation(layer: Any) -> Operation:
        if id(layer) in gone:
            return _same
        if id(layer) in folded:
            return _convolution(layer, folded[id(layer)])
        return _plain(layer)

    return lambda inputs: model._run_through_graph(inputs, operation_fn=operation)


def _folded_batch_norms(model: keras.Model) -> dict[int, Any]:
    """BatchNorms by the id of the convolution whose output they, and nothing else, see."""
    nodes = [node for nodes in model._nodes_by_depth.values() for node in nodes if not node.is_input]
    readers: dict[int, list[Any]] = {}
    for node in nodes:
        for given in node.input_tensors:
            readers.setdefault(id(given), []).append(node.operation)
    for output in model.outputs:
        readers.setdefault(id(output), []).append(None)
    found = {}
    for node in nodes:
        if _is_plain_convolution(node.operation):
            reader, *others = readers[id(node.outputs[0])]
            if not others and isinstance(reader, keras.layers.BatchNormalization):
                found[id(node.operation)] = reader
    return found


def _is_plain_convolution(layer: Any) -> bool:
    return (
        type(layer) in (keras.layers.Conv2D, keras.layers.DepthwiseConv2D)
        and layer.activation is keras.activations.linear
        and layer.data_format == "channels_last"
        and set(layer.dilation_rate) == {1}
        and getattr(layer, "groups", 1) == 1
    )


def _convolution(layer: Any, batch_norm: Any) -> Operation:
    depthwise = isinstance(layer, keras.layers.DepthwiseConv2D)
    apply = tf.nn.depthwise_conv2d if depthwise else convolve
    strides, padding, dtype = (1, *layer.strides, 1), layer.padding.upper(), layer.compute_dtype
    # Where a kernel is more than what comes out, two passes over the map cost less than two over the kernel.
    afterwards = math.prod(layer.kernel.shape) > BATCH * math.prod(layer.output.shape[1:])

    factor, shift = _fixed(batch_norm)
    per_channel = np.reshape(factor, layer.kernel.shape[2:]) if depthwise else factor

    def convolved(inputs: Any, **_: Any) -> Any:
        offset = layer.bias.value * factor + shift if layer.use_bias else shift
        kernel = layer.kernel.value if afterwards else layer.kernel.value * per_channel
        outputs = apply(tf.cast(inputs, dtype), tf.cast(kernel, dtype), strides, padding)
        scaled = outputs * tf.cast(factor, dtype) if afterwards else outputs
        return tf.nn.bias_add(scaled, tf.cast(offset, dtype))

    return convolved


def _fixed(batch_norm: Any) -> tuple[Any, Any]:
    """Factor and shift of each channel, [channels] float32: numbers, because statistics and weights cannot move."""
    with tf.init_scope():  # out of the graph that is being traced
        factor = tf.math.rsqrt(batch_norm.moving_variance.value + batch_norm.epsilon)
        if batch_norm.scale:
            factor *= batch_norm.gamma.value
        shift = -batch_norm.moving_mean.value * factor
        if batch_norm.center:
            shift += batch_norm.beta.value
        return factor.numpy(), shift.numpy()


def _plain(layer: Any) -> Operation:
    """What a layer computes, without Keras around it where that is a single operation."""
    match layer:
        case keras.layers.Add():
            return lambda inputs, **_: tf.add_n(inputs)
        case keras.layers.Activation() if layer.activation is keras.activations.relu:
            return lambda inputs, **_: tf.nn.relu(inputs)
        case keras.layers.ReLU() if (layer.max_value, layer.negative_slope, layer.threshold) == (6, 0, 0):
            return lambda inputs, **_: tf.nn.relu6(inputs)
        case keras.layers.ZeroPadding2D():
            return lambda inputs, **_: tf.pad(inputs, [[0, 0], *layer.padding, [0, 0]])
        case keras.layers.BatchNormalization():
            return lambda inputs, **_: layer(inputs, training=False)
        case _:
            return layer


def _same(inputs: Any, **_: Any) -> Any:
    return inputs

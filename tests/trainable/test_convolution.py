import numpy as np
import pytest

pytestmark = pytest.mark.usefixtures("cpus")


@pytest.mark.parametrize(
    ("kernel", "seen", "strides", "padding", "dtype", "way"),
    [
        ((1, 1, 512, 512), (8, 8), (1, 1), "VALID", "float32", "PRODUCT"),
        ((1, 1, 512, 512), (8, 8), (2, 2), "VALID", "bfloat16", "PRODUCT"),
        ((1, 1, 512, 512), (8, 9), (1, 1), "VALID", "bfloat16", "GRADIENT_AS_PRODUCT"),
        ((1, 1, 64, 256), (16, 16), (1, 1), "VALID", "float32", "GRADIENT_AS_PRODUCT"),
        ((3, 3, 512, 512), (4, 4), (1, 1), "SAME", "float32", "PRODUCT"),
        ((3, 3, 512, 512), (7, 7), (1, 1), "SAME", "bfloat16", "GRADIENT_AS_PRODUCT"),
        ((3, 3, 512, 512), (7, 7), (1, 1), "SAME", "float32", "CONVOLUTION"),
        ((3, 3, 256, 256), (4, 4), (1, 1), "SAME", "bfloat16", "GRADIENT_AS_PRODUCT"),
        ((3, 3, 256, 256), (4, 4), (2, 2), "SAME", "bfloat16", "CONVOLUTION"),
        ((3, 3, 256, 256), (4, 4), (1, 1), "VALID", "bfloat16", "CONVOLUTION"),
        ((3, 3, 256, 256), (14, 14), (1, 1), "SAME", "bfloat16", "CONVOLUTION"),
        ((3, 3, 128, 128), (8, 8), (1, 1), "SAME", "bfloat16", "CONVOLUTION"),
        ((7, 7, 3, 64), (32, 32), (2, 2), "VALID", "bfloat16", "CONVOLUTION"),
    ],
)
def test_large_kernels_on_small_maps_are_products(kernel, seen, strides, padding, dtype, way):
    import tensorflow as tf

    from trainable.convolution import Way, best_way

    assert best_way(kernel, seen, strides, padding, tf.as_dtype(dtype)) is Way[way]


def outputs_and_gradients(convolve, inputs, kernel, strides):
    import tensorflow as tf

    @tf.function
    def computed(inputs, kernel):
        with tf.GradientTape() as tape:
            tape.watch([inputs, kernel])
            outputs = convolve(inputs, kernel, (1, strides, strides, 1), "SAME")
            weights = tf.reshape(tf.range(tf.size(outputs), dtype=tf.float32) % 7 - 3, tf.shape(outputs))
            loss = tf.reduce_sum(tf.cast(outputs, tf.float32) * weights)
        return outputs, *tape.gradient(loss, [inputs, kernel])

    return [np.asarray(tf.cast(each, tf.float32)) for each in computed(inputs, kernel)]


@pytest.mark.parametrize("way", ["PRODUCT", "GRADIENT_AS_PRODUCT"])
@pytest.mark.parametrize(
    ("sides", "width", "strides"),
    [((4, 4), 3, 1), ((5, 2), 3, 1), ((1, 1), 3, 1), ((3, 4), 1, 1), ((7, 6), 1, 2), ((4, 4), 2, 1)],
)
@pytest.mark.parametrize(("dtype", "within"), [("float32", 1e-5), ("bfloat16", 2e-2)])
def test_every_way_is_the_convolution_forwards_and_backwards(monkeypatch, way, sides, width, strides, dtype, within):
    import tensorflow as tf

    from trainable import convolution

    monkeypatch.setattr(convolution, "best_way", lambda *_: convolution.Way[way])
    generator = np.random.default_rng(1)
    inputs = tf.constant(generator.normal(size=(3, *sides, 8)), dtype)
    kernel = tf.constant(generator.normal(size=(width, width, 8, 16)), dtype)
    ours = outputs_and_gradients(convolution.convolve, inputs, kernel, strides)
    theirs = outputs_and_gradients(tf.nn.conv2d, inputs, kernel, strides)
    for mine, other in zip(ours, theirs, strict=True):
        assert mine.shape == other.shape
        assert np.abs(mine - other).max() <= within * np.abs(other).max()


def test_a_gpu_convolves_everything(monkeypatch):
    import tensorflow as tf

    from trainable.convolution import convolve

    monkeypatch.setattr(tf.config, "get_visible_devices", lambda kind=None: ["GPU:0"])
    computed = tf.function(lambda inputs, kernel: convolve(inputs, kernel, (1, 1, 1, 1), "SAME"))
    shapes = tf.TensorSpec([None, 2, 2, 512]), tf.TensorSpec([3, 3, 512, 512])
    graph = computed.get_concrete_function(*shapes).graph
    kinds = [operation.type for operation in graph.get_operations()]
    assert "Conv2D" in kinds
    assert "MatMul" not in kinds

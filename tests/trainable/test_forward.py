import numpy as np
import pytest

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", params=["ResNet50", "MobileNetV2", "VGG16", "DenseNet121"])
def model(request, cpus):
    """A network of 32 x 32 images whose BatchNorms do something, because nothing in them is at its start."""
    import keras

    keras.utils.set_random_seed(1)
    model = getattr(keras.applications, request.param)(include_top=False, weights=None, input_shape=(32, 32, 3))
    generator = np.random.default_rng(1)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.set_weights([generator.uniform(0.5, 1.5, weight.shape) for weight in layer.get_weights()])
    return model


def images(count=4):
    return np.random.default_rng(2).normal(size=(count, 32, 32, 3)).astype(np.float32)


def assert_close(ours, theirs):
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    assert np.abs(ours - theirs).max() < 2e-4 * np.abs(theirs).max()


def test_a_folded_network_computes_what_its_layers_do(model):
    from trainable.forward import forward

    expected = model(images(), training=False)
    assert np.abs(np.asarray(expected)).max() > 0
    assert_close(forward(model)(images()), expected)


def test_kernels_and_biases_get_the_gradients_that_the_layers_give(model):
    import tensorflow as tf

    from trainable.forward import forward

    moving = [weight.value for weight in model.trainable_variables if weight.name in ("kernel", "bias")]

    def gradients(function):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(function(images())))
        return tape.gradient(loss, moving)

    ours, theirs = gradients(forward(model)), gradients(lambda x: model(x, training=False))
    largest = max(float(tf.reduce_max(tf.abs(each))) for each in theirs)
    assert largest > 0
    for mine, other in zip(ours, theirs, strict=True):
        assert np.abs(np.asarray(mine) - np.asarray(other)).max() < 1e-3 * largest


def test_no_batch_norm_is_left_but_those_that_follow_no_convolution(model):
    import keras
    import tensorflow as tf

    from trainable.forward import _folded_batch_norms, forward

    batch_norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    folded = _folded_batch_norms(model)
    left = len(batch_norms) - len(folded)
    assert left == {"densenet121": 62, "resnet50": 0, "vgg16": 0}.get(model.name, 0)
    graph = tf.function(forward(model)).get_concrete_function(tf.TensorSpec([None, 32, 32, 3])).graph
    biases = sum(operation.type == "BiasAdd" for operation in graph.get_operations())
    assert biases >= len(folded)


def test_large_kernels_on_small_maps_are_products_of_matrices(model):
    import tensorflow as tf

    from trainable.forward import forward

    convolutions = sum(type(layer).__name__ == "Conv2D" for layer in model.layers)
    products = {"resnet50": 22, "mobilenetv2_1.00_32": 2}.get(model.name, 0)  # DenseNet's see no BatchNorm after them
    graph = tf.function(forward(model)).get_concrete_function(tf.TensorSpec([None, 32, 32, 3])).graph
    kinds = [operation.type for operation in graph.get_operations()]
    assert (kinds.count("MatMul"), kinds.count("Conv2D")) == (products, convolutions - products)


@pytest.mark.parametrize(
    ("side", "strides", "kind"), [(8, 1, "MatMul"), (9, 1, "Conv2D"), (15, 2, "MatMul"), (17, 2, "Conv2D")]
)
def test_a_product_on_a_small_map_is_the_convolution(side, strides, kind, cpus):
    import keras
    import tensorflow as tf

    from trainable.forward import forward

    keras.utils.set_random_seed(3)
    given = keras.Input((side, side, 512))
    convolved = keras.layers.Conv2D(512, 1, strides, padding="same")(given)
    model = keras.Model(given, keras.layers.BatchNormalization()(convolved))
    pixels = np.random.default_rng(4).normal(size=(2, side, side, 512)).astype(np.float32)
    ours = tf.function(forward(model))
    assert_close(ours(pixels), model(pixels, training=False))
    graph = ours.get_concrete_function(tf.TensorSpec([None, side, side, 512])).graph
    assert {each.type for each in graph.get_operations()} & {"MatMul", "Conv2D"} == {kind}


def test_a_cut_network_folds_what_lies_between_its_cuts(cpus):
    import keras

    from trainable.forward import forward

    whole = keras.applications.ResNet50(include_top=False, weights=None, input_shape=(32, 32, 3))
    cut = whole.get_layer("conv3_block4_out").output
    below, above = keras.Model(whole.input, cut), keras.Model(cut, whole.output)
    assert_close(forward(above)(forward(below)(images())), whole(images(), training=False))

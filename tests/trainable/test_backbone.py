import numpy as np
import pytest

from trainable.errors import InputError
from trainable.hyperparameters import Hyperparameters
from trainable.settings import ModelSettings
from trainable.whole_file import sha256

pytestmark = pytest.mark.slow

HEAD_ONLY = 17  # freeze depth of ResNet50 by block
TOP_BLOCK = 16  # conv5_block3 trains as well
STAGES = (0, 1, 4, 8, 14)  # where stages begin, counted in blocks

CONVOLUTION = ("kernel", "bias")
BATCH_NORM = ("gamma", "beta", "moving_mean", "moving_variance")


def size(weights):
    return sum(int(np.prod(weight.shape)) for weight in weights)


def values(backbone):
    return {weight.path: np.asarray(weight).copy() for weight in backbone.model.variables}


def changed(before, after):
    return {path for path, value in after.items() if not np.array_equal(before[path], value)}


def paths(backbone, names, layers=""):
    """Paths of the weights with one of these names in layers whose name begins so."""
    return {path for path in values(backbone) if path.startswith(layers) and path.endswith(names)}


def moved_by_two_steps(networks, parts, freeze_depth, batch_norm):
    chosen = Hyperparameters(freeze_depth=freeze_depth, learning_rate=0.01)
    network = networks.warm(chosen, batch_norm)
    network.reset(chosen, seed=1)
    before = values(networks.backbone)
    for step in range(2):
        network.step(network.prefix(parts[0].images[:8]), parts[0].labels[:8], np.ones(8), (1, step))
    return changed(before, values(networks.backbone))


def test_a_frozen_batch_norm_never_moves_and_other_weights_move_above_the_cut_only(networks, parts):
    everything = paths(networks.backbone, CONVOLUTION)
    assert len(everything) == 106
    assert moved_by_two_steps(networks, parts, 0, "frozen") == everything
    top = paths(networks.backbone, CONVOLUTION, "conv5_block3")
    assert len(top) == 6
    assert moved_by_two_steps(networks, parts, TOP_BLOCK, "frozen") == top


def test_with_frozen_prefix_everything_above_the_cut_moves_and_nothing_below(networks, parts):
    top = paths(networks.backbone, CONVOLUTION + BATCH_NORM, "conv5_block3")
    assert len(top) == 18
    found = moved_by_two_steps(networks, parts, TOP_BLOCK, "frozen_prefix")
    # A bias before a BatchNorm that uses batch statistics is subtracted again: its gradient is rounding or nothing.
    assert found | paths(networks.backbone, "bias", "conv5_block3") == top


def test_with_train_every_batch_norm_moves_whatever_is_frozen(networks, parts):
    found = moved_by_two_steps(networks, parts, TOP_BLOCK, "train")
    top = paths(networks.backbone, CONVOLUTION, "conv5_block3")
    assert found | top == paths(networks.backbone, BATCH_NORM) | top
    assert found >= paths(networks.backbone, "kernel", "conv5_block3")


def test_with_the_head_alone_no_weight_of_the_backbone_moves(networks, parts):
    assert moved_by_two_steps(networks, parts, HEAD_ONLY, "frozen") == set()


def test_restore_puts_every_weight_back(networks, parts):
    networks.backbone.restore()
    first = values(networks.backbone)
    assert moved_by_two_steps(networks, parts, TOP_BLOCK, "frozen_prefix")
    networks.backbone.restore()
    assert changed(first, values(networks.backbone)) == set()


def test_prefix_and_suffix_together_are_the_whole_network(networks, parts):
    networks.backbone.restore()
    images = networks.backbone.preprocess(parts[0].images[:4])
    whole = np.asarray(networks.backbone.model(images, training=False)).mean(axis=(1, 2))
    assert whole.shape == (4, networks.backbone.features)
    assert np.ptp(whole) > 0.1
    for depth in (*STAGES, TOP_BLOCK):
        cut = networks.backbone.prefix(depth)(images, training=False)
        pooled = np.asarray(networks.backbone.suffix(depth)(cut, training=False))
        np.testing.assert_allclose(pooled, whole, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(networks.backbone.prefix(HEAD_ONLY)(images, training=False), whole, rtol=1e-4, atol=1e-5)


def test_every_stage_of_resnet50_holds_its_parameters(networks):
    above = [networks.backbone.suffix(depth).count_params() for depth in STAGES]
    assert networks.backbone.parameters == above[0] == 23_587_712
    assert (-np.diff([*above, 0])).tolist() == [9_728, 220_032, 1_230_336, 7_129_088, 14_998_528]


def test_more_weights_train_the_fewer_are_frozen(networks):
    with_batch_norm = [size(networks.backbone.suffix_variables(depth, batch_norms=True)) for depth in range(18)]
    without = [size(networks.backbone.suffix_variables(depth, batch_norms=False)) for depth in range(18)]
    assert with_batch_norm == sorted(with_batch_norm, reverse=True)
    assert with_batch_norm[0] == 23_534_592
    assert [with_batch_norm[depth] for depth in (14, 17)] == [14_976_000, 0]
    assert len(set(with_batch_norm)) == 18
    assert all(fewer < more for fewer, more in zip(without[:-1], with_batch_norm[:-1], strict=True))
    assert size(networks.backbone.batch_norm_weights()) == with_batch_norm[0] - without[0]


def test_colours_are_preprocessed_as_resnet50_was_trained(networks):
    import keras

    pixels = np.array([[[[10, 20, 30], [255, 0, 128]]]], np.uint8)
    given = np.asarray(networks.backbone.preprocess(pixels))
    expected = [[30 - 103.939, 20 - 116.779, 10 - 123.68], [128 - 103.939, 0 - 116.779, 255 - 123.68]]
    np.testing.assert_allclose(given[0, 0], expected, rtol=1e-6)
    theirs = keras.applications.resnet50.preprocess_input(pixels.astype(np.float32))
    assert np.array_equal(given, theirs)


def test_grey_is_repeated_in_all_three_channels(networks):
    grey = np.arange(8, dtype=np.uint8).reshape(1, 2, 4, 1)
    assert np.array_equal(networks.backbone.preprocess(grey), networks.backbone.preprocess(np.repeat(grey, 3, axis=-1)))


@pytest.fixture(scope="module")
def mobilenet_file(cpus, tmp_path_factory):
    import keras

    path = tmp_path_factory.mktemp("mobilenet") / "mobilenet.weights.h5"
    keras.applications.MobileNetV2(include_top=False, weights=None, input_shape=(32, 32, 3)).save_weights(path)
    yield path
    path.unlink()


def test_another_architecture_brings_its_own_preprocessing_and_depth(mobilenet_file):
    from trainable.backbone import Backbone

    backbone = Backbone(ModelSettings(architecture="mobilenetv2", weights=mobilenet_file), 32, seed=1)
    assert (backbone.depth, backbone.features) == (5, 1280)
    np.testing.assert_allclose(
        backbone.preprocess(np.array([[[[0], [51], [255]]]], np.uint8))[0, 0, :, 0], [-1, -0.6, 1]
    )


def test_weights_that_do_not_fit_are_an_input_error(mobilenet_file, tmp_path):
    from trainable.backbone import check_weights

    (tmp_path / "text.weights.h5").write_text("no weights")
    for path, architecture, name in (
        (mobilenet_file, "resnet50", "ResNet50"),
        (tmp_path / "text.weights.h5", "vgg16", "VGG16"),
    ):
        with pytest.raises(InputError, match=f"must hold weights of {name} without its top") as caught:
            check_weights(ModelSettings(architecture=architecture, weights=path), 32)
        assert str(caught.value).startswith(f"model.weights: {path} ")
        assert len(caught.value.problems) == 1


def test_f29_a_byte_flipped_in_a_weights_file_is_found_by_the_worker_that_loads_it(mobilenet_file, tmp_path):
    from trainable.backbone import check_weights

    path, content = tmp_path / "copy.weights.h5", bytearray(mobilenet_file.read_bytes())
    settings = ModelSettings(architecture="mobilenetv2", weights=path, weights_sha256=sha256(mobilenet_file))
    path.write_bytes(content)
    check_weights(settings, 32)
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    check_weights(settings.model_copy(update={"weights_sha256": None}), 32)  # it loads without a word
    with pytest.raises(
        InputError, match=f"must have the sha256 {settings.weights_sha256}, but has .*put the file back"
    ):
        check_weights(settings, 32)


def test_random_weights_are_those_of_their_seed(cpus):
    from trainable.backbone import Backbone

    settings = ModelSettings(architecture="vgg16", weights="random")
    first, again, other = (Backbone(settings, 32, seed).model.get_weights() for seed in (1, 1, 2))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(first, other, strict=True))


def test_an_untrained_resnet_starts_with_every_residual_block_as_the_identity(cpus):
    from trainable.backbone import Backbone

    backbone = Backbone(ModelSettings(weights="random", freeze_unit="block"), 32, seed=1)
    images = backbone.preprocess(np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3)).astype(np.uint8))
    before, after = (backbone.prefix(depth)(images, training=False) for depth in (2, 3))
    assert np.ptp(before) > 0
    assert np.array_equal(before, after)

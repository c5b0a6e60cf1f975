import csv

import numpy as np
import pytest
from PIL import Image

from trainable.dataset import ImageSet
from trainable.errors import InputError
from trainable.hyperparameters import Hyperparameters
from trainable.predict import Classifier, Description

pytestmark = pytest.mark.slow  # the module imports TensorFlow

DESCRIPTION = Description(
    classes=["empty", "square"],
    positive_class="square",
    threshold=0.5,
    image_size=32,
    colour="grey",
    sha256="0" * 64,
    architecture="resnet50",
)


@pytest.fixture(scope="module")
def explanation(cpus):
    from trainable import explanation

    return explanation


def squares(count, seed):
    """Grey noise; every second image has a bright square of 8 pixels. The pixels, and the squares' places."""
    random = np.random.default_rng(seed)
    images = random.integers(60, 100, (count, 32, 32, 1)).astype(np.uint8)
    places = random.integers(0, 24, (count, 2))
    for number in range(1, count, 2):
        row, column = places[number]
        images[number, row : row + 8, column : column + 8] = 230
    return images, places


# Grad-CAM where its answer is known


def test_the_map_is_what_the_paper_says_for_a_network_that_can_be_computed_by_hand(explanation):
    import tensorflow as tf

    features = np.array([[[[1.0, 0.0], [0.0, 2.0]], [[3.0, 1.0], [0.0, 0.0]]]], np.float32)  # [1, 2, 2, 2]
    matrix = np.array([[1.0, 0.0], [0.0, 1.0]], np.float32)

    def trunk(images):
        maps = tf.identity(images)
        return maps, tf.reduce_mean(maps, axis=(1, 2))

    def heat(index):
        images = tf.constant(features)
        return explanation.grad_cam(trunk, lambda pooled: pooled @ matrix, images, tf.constant([index])).numpy()[0]

    # Log-odds of class 0 are channel 0 minus channel 1: weights 1/4 and -1/4, so (1, -2; 2, 0) / 4, cut at 0, scaled.
    np.testing.assert_allclose(heat(0), [[0.5, 0.0], [1.0, 0.0]], atol=1e-6)
    np.testing.assert_allclose(heat(1), [[0.0, 1.0], [0.0, 0.0]], atol=1e-6)


def test_log_odds_are_against_all_other_classes_together(explanation):
    import tensorflow as tf

    logits = tf.constant([[2.0, 1.0, 0.0], [500.0, -500.0, 0.0]])
    given = explanation._log_odds(logits, tf.constant([0, 1])).numpy()
    probability = np.exp(2.0) / np.exp([2.0, 1.0, 0.0]).sum()
    np.testing.assert_allclose(given, [np.log(probability / (1 - probability)), -1000.0], rtol=1e-5)


def test_where_nothing_speaks_for_the_class_the_map_is_zero(explanation):
    import tensorflow as tf

    def trunk(images):
        maps = tf.nn.relu(images)
        return maps, tf.reduce_mean(maps, axis=(1, 2))

    heat = explanation.grad_cam(trunk, lambda pooled: pooled, tf.zeros((1, 2, 2, 2)), tf.constant([0])).numpy()
    assert np.array_equal(heat, np.zeros((1, 2, 2)))


# Real networks


@pytest.mark.parametrize(
    ("architecture", "layer"),
    [
        ("resnet50", "conv3_block4_out"),
        ("resnet101", "conv3_block4_out"),
        ("mobilenetv2", "block_5_add"),
        ("vgg16", "block4_conv3"),
        ("densenet121", "conv3_block12_concat"),
    ],
)
def test_every_architecture_is_explained_at_its_deepest_map_of_4_by_4_places(explanation, architecture, layer):
    from trainable.backbone import Backbone
    from trainable.network import Network, NetworkKey
    from trainable.settings import ModelSettings

    settings = ModelSettings(architecture=architecture, weights="random")
    hyperparameters = Hyperparameters(freeze_depth=3, head_width=4)
    backbone = Backbone(settings, 32, seed=1)
    network = Network(backbone, NetworkKey.of(hyperparameters, settings, channels=1, classes=2))
    network.reset(hyperparameters, seed=1)
    description = DESCRIPTION.model_copy(update={"architecture": architecture})
    explainer = explanation.Explainer(Classifier(network.whole_model(), description))
    assert explainer.layer == layer
    heat = explainer.heat(squares(3, seed=1)[0], np.array([0, 1, 1]))
    assert heat.shape == (3, 4, 4)
    assert heat.min() >= 0
    assert heat.max() <= 1
    assert np.isfinite(heat).all()


@pytest.mark.parametrize(("size", "places"), [(32, 4), (64, 4), (96, 6), (128, 8), (224, 7)])
def test_larger_images_get_finer_maps_up_to_those_of_the_last_layer(explanation, size, places):
    import keras

    # Strides of the places after ResNet's stages: 4, 8, 16, 32.
    inputs = tensor = keras.Input((size, size, 3))
    for number, stride in enumerate((4, 2, 2, 2)):
        tensor = keras.layers.AveragePooling2D(stride, padding="same", name=f"stage_{number}")(tensor)
    backbone = keras.Model(inputs, keras.layers.GlobalAveragePooling2D(name="pooled")(tensor))
    _, features = explanation._feature_map(backbone, [f"stage_{n}" for n in range(4)], size)
    assert features.shape[1] == places


def test_a_trained_network_is_hot_where_the_square_is(explanation, networks):
    from trainable.training import Task, Training

    images, _ = squares(96, seed=1)
    labels = np.arange(96) % 2
    names = tuple(map(str, range(96)))
    data = ImageSet(images, labels, names, names, ("empty", "square"))
    hyperparameters = Hyperparameters(
        freeze_depth=11, batch_size=16, learning_rate=1e-3, augmentation_strength=0.0, plateau_patience=0
    )
    network = networks.warm(hyperparameters)
    training = Training(network, hyperparameters, Task(data, None, 1, 1), 1, 8)
    for _ in range(8):
        training.run_epoch()

    classifier = Classifier(network.whole_model(), DESCRIPTION)
    images, places = squares(80, seed=2)
    given = classifier.probabilities(images)
    found = [number for number in range(1, 80, 2) if given[number, 1] > 0.5]
    assert len(found) > 30
    heat = explanation.Explainer(classifier).heat(images[found], np.ones(len(found), int))
    centres = np.array([divmod(int(each.argmax()), 4) for each in heat]) * 8 + 4
    hits = (np.abs(centres - (places[found] + 4)) <= 8).all(axis=1)
    # By chance 0.2, a quarter of the places at most being that near, and a standard deviation of 0.07. Processors round
    # differently, and eight passes are few: 0.47 was seen, and above 0.5.
    assert hits.mean() > 0.4


def test_a_model_of_unknown_make_is_refused(explanation):
    import keras

    images = keras.Input((32, 32, 3))
    model = keras.Model(images, keras.layers.GlobalAveragePooling2D()(images))
    with pytest.raises(InputError, match="must be one that `retrain` made"):
        explanation.Explainer(Classifier(model, DESCRIPTION))
    unnamed = DESCRIPTION.model_copy(update={"architecture": None})
    with pytest.raises(InputError, match=r"must name an architecture \(resnet50, .*\), but says None"):
        explanation.Explainer(Classifier(model, unnamed))


# Pictures


def test_an_unknown_class_is_refused_with_those_that_are_known(explanation):
    assert explanation.class_index(["a", "b"], "b") == 1
    with pytest.raises(InputError, match="--class: must be one of a, b, but got c"):
        explanation.class_index(["a", "b"], "c")


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("scan 1.png", "00007_scan_1.png"),
        ("../../etc/.hidden", "00007_hidden.png"),
        ("läsion\n<b>.jpg", "00007_l_sion_b.png"),
        ("…", "00007_image.png"),
        ("x" * 300, f"00007_{'x' * 60}.png"),
    ],
)
def test_a_picture_has_a_name_that_is_safe_anywhere(explanation, tmp_path, file, name):
    assert explanation.picture_name(7, tmp_path / file) == name


def test_heat_is_laid_over_the_image_where_it_is_hot_and_nowhere_else(explanation):
    heat = np.zeros((4, 4), np.float32)
    heat[0, 0] = 1.0
    picture = np.asarray(
        explanation.draw_overlay(Image.new("RGB", (64, 32), (90, 90, 90)), heat, "a\n0.5", height=80), int
    )
    caption = explanation.CAPTION
    assert picture.shape == (80 + caption, 2 * 160 + 4, 3)
    assert picture[:caption].min() < 128  # there is text
    left, right = picture[caption:, :160], picture[caption:, 164:]
    assert np.array_equal(left, np.full_like(left, 90))
    assert np.abs(right[:10, :20] - 90).max(axis=-1).min() > 40
    assert np.array_equal(right[60:, 110:], left[60:, 110:])  # beyond what bicubic interpolation reaches


def test_overlays_explain_the_predicted_class_and_list_what_they_show(explanation, retrained, drawn, tmp_path):
    from trainable.predict import predict_files

    files = sorted((drawn.path / "lesion").glob("*.png"))[:3]
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    classifier = Classifier.load(retrained / "final")
    overlays = explanation.Overlays(classifier, tmp_path / "heat", None)
    rows = list(predict_files(classifier, [files[0], broken, *files[1:]], lambda *_: None, 2, overlays.add))
    assert overlays.finish() == 3
    with (tmp_path / "heat" / "index.csv").open(encoding="utf-8", newline="") as stream:
        listed = list(csv.DictReader(stream))
    assert [row["file"] for row in listed] == [str(file) for file in files]
    readable = [row for row in rows if not row["error"]]
    for row, told in zip(readable, listed, strict=True):
        assert told["explained_class"] == told["predicted"] == row["predicted"]
        assert float(told["probability"]) == row[f"probability_{row['predicted']}"]
        assert Image.open(tmp_path / "heat" / told["picture"]).size == (644, 360)

    wanted = explanation.Overlays(classifier, tmp_path / "other", "clear")
    list(predict_files(classifier, files[:1], lambda *_: None, 2, wanted.add))
    wanted.finish()
    assert "clear" in (tmp_path / "other" / "index.csv").read_text().splitlines()[1]

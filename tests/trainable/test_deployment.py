import dataclasses
import importlib.util
import json
import math

import numpy as np
import pytest

from trainable.dataset import build_arrays
from trainable.deployment import (
    FORMATS,
    Opened,
    _drop_unused_inputs,
    check_request,
    deploy,
    images_to_compare,
    largest_distance,
)
from trainable.errors import DeploymentError, InputError
from trainable.inspection import inspect_images
from trainable.predict import Classifier, Description
from trainable.split import make_split
from trainable.whole_file import sha256

SIZE = 32


def build(seed, precision="float32"):
    """A small network from 0..255 to probabilities, with preprocessing, a nested part and a head as a real one has."""
    import keras

    keras.utils.set_random_seed(seed)
    policy = keras.DTypePolicy(precision)
    inner = keras.Input((SIZE, SIZE, 3))
    features = keras.layers.Conv2D(8, 3, strides=2, activation="relu", dtype=policy)(inner)
    backbone = keras.Model(inner, keras.layers.GlobalAveragePooling2D(dtype=policy)(features))
    images = keras.Input((SIZE, SIZE, 3), name="image")
    logits = keras.layers.Dense(3, kernel_initializer="random_normal", dtype="float32")(backbone(images / 127.5 - 1.0))
    return keras.Model(images, keras.layers.Softmax(name="probabilities", dtype="float32")(40 * logits))


def save(folder, model):
    folder.mkdir(parents=True)
    model.save(folder / "model.keras")
    description = Description(
        classes=["a", "b", "c"],
        positive_class=None,
        threshold=0.5,
        image_size=SIZE,
        colour="grey",
        sha256=sha256(folder / "model.keras"),
        architecture="resnet50",
    )
    (folder / "model.json").write_text(description.model_dump_json(), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def run(cpus, tmp_path_factory):
    """A run folder with a trained model and no arrays any more."""
    folder = tmp_path_factory.mktemp("run")
    save(folder / "final", build(1))
    return folder


def names_in(folder):
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


# What can be known at once


def test_every_problem_of_a_request_is_told_at_once_with_what_to_install(tmp_path, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "tf2onnx" else find(name))
    (tmp_path / "model.tflite").mkdir()
    with pytest.raises(InputError) as caught:
        check_request(FORMATS["onnx"], tmp_path / "model.tflite")
    assert caught.value.problems == [
        "--format onnx: needs tf2onnx: python -m pip install 'thawline[onnx]'",
        f"{tmp_path}/model.tflite: must end in .onnx for --format onnx",
        f"{tmp_path}/model.tflite: must be free or hold an earlier export, but something else is there",
    ]


def test_a_folder_that_is_no_saved_model_is_never_replaced(tmp_path):
    (tmp_path / "photos").mkdir()
    with pytest.raises(InputError, match="something else is there"):
        check_request(FORMATS["savedmodel"], tmp_path / "photos")
    (tmp_path / "photos" / "saved_model.pb").touch()
    check_request(FORMATS["savedmodel"], tmp_path / "photos")


# The images it is compared on


def test_validation_images_are_compared_where_they_are_kept(drawn, tmp_path):
    validation = build_arrays(tmp_path, drawn, make_split(inspect_images(drawn), drawn, seed=1), "validation")
    images, source = images_to_compare(tmp_path, SIZE)
    assert (source, images.dtype, images.shape) == ("validation images", np.float32, (len(validation), SIZE, SIZE, 3))
    assert np.array_equal(images[..., 0], validation.images[..., 0])
    assert np.array_equal(images[..., 2], validation.images[..., 0])


def test_seeded_noise_is_compared_where_they_are_gone(tmp_path):
    images, source = images_to_compare(tmp_path, SIZE)
    assert source == "images of seeded noise"
    assert images.shape == (64, SIZE, SIZE, 3)
    assert images.min() == 0
    assert images.max() == 255
    assert np.array_equal(images, images_to_compare(tmp_path, SIZE)[0])


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        (lambda images: images, 0.0),
        (lambda images: images + 0.25 * (images == 3), 0.25),
        (lambda images: images[:1].repeat(len(images), 0), 2.0),  # answers every image as it does the first of a batch
        (lambda images: images * (math.nan if len(images) == 1 else 1), math.nan),
        (lambda images: images * (math.nan if len(images) > 1 else 1), math.nan),
    ],
)
def test_the_distance_is_the_largest_and_nan_is_never_small(other, expected):
    images = np.arange(4, dtype=np.float32)[:, None]
    assert largest_distance(lambda images: images, other, images) == pytest.approx(expected, nan_ok=True)


# Writing


@pytest.mark.slow
@pytest.mark.parametrize("name", FORMATS)
def test_an_exported_model_gives_the_same_probabilities_and_says_how_to_use_it(run, tmp_path, name):
    format = FORMATS[name]
    target = tmp_path / "new" / f"net{format.ending}"
    done = deploy(run / "final", format, target, run)
    assert done.distance <= done.tolerance == format.tolerance
    assert names_in(target.parent) == sorted([target.name, f"{target.name}.json"])

    how = json.loads(done.description.read_text(encoding="utf-8"))
    assert (how["format"], how["classes"], how["image_size"], how["colour"]) == (name, ["a", "b", "c"], SIZE, "grey")
    assert how["input"] | {"name": "image", "shape": [None, SIZE, SIZE, 3], "range": [0, 255]} == how["input"]
    assert how["output"]["shape"] == [None, 3]
    assert how["compared"] == {
        "images": 64,
        "source": "images of seeded noise",
        "distance": done.distance,
        "tolerance": format.tolerance,
    }
    root = target if target.is_dir() else target.parent
    assert {file: sha256(root / file) for file in how["files"]} == how["files"]
    assert how["sha256"] == sha256(run / "final" / "model.keras")

    images = np.random.default_rng(1).uniform(0, 255, (5, SIZE, SIZE, 3)).astype(np.float32)
    expected = np.asarray(Classifier.load(run / "final").model(images, training=False))
    assert np.ptp(expected) > 0.1
    np.testing.assert_allclose(format.open(target).run(images), expected, atol=format.tolerance)

    deploy(run / "final", format, target, run)  # an earlier export is replaced
    assert names_in(target.parent) == sorted([target.name, f"{target.name}.json"])


@pytest.mark.slow
def test_an_onnx_graph_keeps_the_inputs_that_something_is_made_of(tmp_path):
    onnx = pytest.importorskip("onnx")
    image, constant, answer = (
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1]) for name in ("image", "mean", "answer")
    )
    node = onnx.helper.make_node("Neg", ["image"], ["answer"])
    graph = onnx.helper.make_graph([node], "graph", [image, constant], [answer])
    onnx.save(onnx.helper.make_model(graph), tmp_path / "model.onnx")
    _drop_unused_inputs(tmp_path / "model.onnx")
    assert [value.name for value in onnx.load(tmp_path / "model.onnx").graph.input] == ["image"]


def test_an_exported_keras_model_is_one_that_predicts(run, tmp_path):
    done = deploy(run / "final", FORMATS["keras"], tmp_path / "lungs.keras", run)
    images = np.full((2, SIZE, SIZE, 1), 99, np.uint8)
    given = Classifier.load(done.path).probabilities(images)
    assert np.array_equal(given, Classifier.load(run / "final").probabilities(images))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["savedmodel", "tflite"])
def test_a_model_that_answers_otherwise_leaves_no_file_and_what_was_there_stays(run, tmp_path, name):
    format, other = FORMATS[name], build(2)
    wrong = dataclasses.replace(format, write=lambda _, path: format.write(other, path))
    target = tmp_path / f"net{format.ending}"
    with pytest.raises(DeploymentError, match=r"must be within [0-9.e-]+ of those of model\.keras, but differ by 0\."):
        deploy(run / "final", wrong, target, run)
    assert names_in(tmp_path) == []
    done = deploy(run / "final", format, target, run)
    before = done.description.read_bytes()
    with pytest.raises(DeploymentError):
        deploy(run / "final", wrong, target, run)
    assert names_in(tmp_path) == sorted([target.name, f"{target.name}.json"])
    assert done.description.read_bytes() == before


@pytest.mark.slow
@pytest.mark.parametrize("when", ["write", "open"])
def test_a_failure_on_the_way_leaves_nothing(run, tmp_path, when):
    def fail(*_):
        raise OSError("no space left on device")

    with pytest.raises(OSError, match="no space left"):
        deploy(
            run / "final",
            dataclasses.replace(FORMATS["keras"], **{when: fail}),
            tmp_path / "a.keras",
            run,
        )
    assert names_in(tmp_path) == []


@pytest.mark.slow
def test_probabilities_that_are_not_numbers_are_refused(run, tmp_path):
    nothing = Opened("image", "probabilities", lambda images: np.full((len(images), 3), math.nan, np.float32))
    broken = dataclasses.replace(FORMATS["keras"], open=lambda _: nothing)
    with pytest.raises(DeploymentError, match="differ by nan"):
        deploy(run / "final", broken, tmp_path / "net.keras", run)
    assert names_in(tmp_path) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tflite", "onnx"])
def test_a_model_of_mixed_precision_is_exported_in_float32(cpus, tmp_path, name):
    final = save(tmp_path / "run" / "final", build(3, "mixed_bfloat16"))
    done = deploy(final, FORMATS[name], tmp_path / f"net{FORMATS[name].ending}", tmp_path / "run")
    assert done.tolerance == pytest.approx(0.03 + FORMATS[name].tolerance)
    assert 0 < done.distance <= done.tolerance

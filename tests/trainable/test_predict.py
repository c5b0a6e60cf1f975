import json

import numpy as np
import pytest
from PIL import Image

from trainable.errors import InputError
from trainable.predict import Classifier, Description, columns, find_images, predict_files
from trainable.whole_file import sha256

DESCRIPTION = Description(
    classes=["dark", "light"], positive_class="light", threshold=0.25, image_size=32, colour="grey", sha256="0" * 64
)


def brightness(images, training):
    """A model whose probability of `light` is the mean of an image's pixels, from 0 to 1."""
    assert training is False
    assert images.dtype == np.float32
    assert images.shape[1:] == (32, 32, 3)
    light = images.mean(axis=(1, 2, 3)) / 255
    return np.stack([1 - light, light], axis=1)


@pytest.fixture
def classifier():
    return Classifier(brightness, DESCRIPTION)


def save(path, grey, size=(40, 50)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", size, grey).save(path)
    return path


def predict(classifier, files, **values):
    return list(predict_files(classifier, files, lambda *_: None, **values))


def test_every_file_gets_its_class_at_the_threshold_and_its_probabilities(classifier, tmp_path):
    files = [save(tmp_path / f"{grey}.png", grey) for grey in (0, 51, 102, 255)]
    rows = predict(classifier, files)
    assert [row["file"] for row in rows] == [str(file) for file in files]
    assert [row["predicted"] for row in rows] == ["dark", "dark", "light", "light"]  # 0.4 is above the threshold 0.25
    assert [row["probability_light"] for row in rows] == pytest.approx([0, 0.2, 0.4, 1])
    assert [row["probability_dark"] for row in rows] == pytest.approx([1, 0.8, 0.6, 0])
    assert [row["error"] for row in rows] == ["", "", "", ""]
    assert all(list(row) == columns(classifier) for row in rows)
    assert columns(classifier) == ["file", "predicted", "probability_dark", "probability_light", "error"]


@pytest.mark.parametrize("batch_size", [1, 2, 3, 64])
def test_unreadable_images_keep_their_place_and_say_why(classifier, tmp_path, batch_size):
    (tmp_path / "text.png").write_text("no image")
    (tmp_path / "empty.png").write_bytes(b"")
    cut = save(tmp_path / "cut.png", 77)
    cut.write_bytes(cut.read_bytes()[:60])
    files = [
        save(tmp_path / "a.png", 255),
        tmp_path / "text.png",
        tmp_path / "empty.png",
        tmp_path / "missing.png",
        cut,
        save(tmp_path / "b.png", 0),
        tmp_path / "text.png",
    ]
    rows = predict(classifier, files, batch_size=batch_size)
    assert [row["file"] for row in rows] == [str(file) for file in files]
    assert [row["predicted"] for row in rows] == ["light", "", "", "", "", "dark", ""]
    for row, reason in zip(rows[1:5], ["is no image", "is empty", "No such file", "cannot be decoded"], strict=True):
        assert reason in row["error"]
        assert row["file"] in row["error"]
        assert row["probability_dark"] == row["probability_light"] == ""
        assert list(row) == columns(classifier)


def test_nothing_readable_is_no_failure(classifier, tmp_path):
    [row] = predict(classifier, [tmp_path / "missing.png"])
    assert row["predicted"] == ""
    assert predict(classifier, []) == []


def test_progress_counts_all_files(classifier, tmp_path):
    told = []
    files = [save(tmp_path / f"{number}.png", 9) for number in range(5)]
    list(predict_files(classifier, files, lambda *progress: told.append(progress), batch_size=2))
    assert told == [(2, 5), (4, 5), (5, 5)]


def test_an_image_too_large_to_be_honest_is_refused_from_its_header(classifier, tmp_path):
    [row] = predict(classifier, [save(tmp_path / "large.png", 0, (7100, 7100))])
    assert "at most 50,000,000 pixels" in row["error"]


def test_a_model_takes_images_as_large_as_its_study_did(tmp_path):
    large = Classifier(brightness, DESCRIPTION.model_copy(update={"max_pixels": 60_000_000}))
    [row] = predict(large, [save(tmp_path / "large.png", 0, (7100, 7100))])
    assert (row["error"], row["predicted"]) == ("", "dark")


def test_probabilities_do_not_depend_on_batches_and_may_be_none(classifier):
    images = np.random.default_rng(0).integers(0, 256, (7, 32, 32, 1)).astype(np.uint8)
    assert np.array_equal(classifier.probabilities(images, batch_size=2), classifier.probabilities(images))
    assert classifier.probabilities(images[:0]).shape == (0, 2)


class ResourceExhaustedError(Exception):
    """TensorFlow's, by its name."""


@pytest.mark.parametrize("fit", [20, 1])
def test_where_memory_runs_out_fewer_images_are_scored_at_a_time(fit):
    def cramped(images, training):
        if len(images) > fit:
            raise ResourceExhaustedError
        return brightness(images, training)

    images = np.random.default_rng(0).integers(0, 256, (70, 32, 32, 1)).astype(np.uint8)
    scored = Classifier(cramped, DESCRIPTION).probabilities(images)
    assert np.array_equal(scored, Classifier(brightness, DESCRIPTION).probabilities(images))


def test_one_image_that_does_not_fit_is_an_error():
    def full(images, training):
        raise ResourceExhaustedError

    with pytest.raises(ResourceExhaustedError):
        Classifier(full, DESCRIPTION).probabilities(np.zeros((3, 32, 32, 1), np.uint8))


def test_with_several_classes_the_most_probable_is_chosen():
    description = DESCRIPTION.model_copy(update={"classes": ["a", "b", "c"], "positive_class": None})
    classifier = Classifier(None, description)
    assert classifier.decide(np.array([[0.3, 0.3, 0.4], [0.5, 0.3, 0.2], [0.2, 0.6, 0.2]])) == ["c", "a", "b"]


def test_files_are_taken_as_named_and_folders_by_their_images_in_order(tmp_path):
    for name in ("b.PNG", "a.jpeg", "below/c.tif"):
        save(tmp_path / "folder" / name.replace(".PNG", ".png"), 0).rename(tmp_path / "folder" / name)
    (tmp_path / "folder" / "notes.txt").write_text("no image")
    (tmp_path / "folder" / "folder.png").mkdir()
    for hidden in ("._a.jpeg", ".thumbnails/a.jpeg"):
        save(tmp_path / "folder" / hidden, 0)
    named = tmp_path / "named without ending"
    named.write_text("whatever it is")
    folder = tmp_path / "folder"
    assert find_images([named, folder]) == [named, folder / "a.jpeg", folder / "b.PNG", folder / "below/c.tif"]


def test_places_that_are_not_there_are_all_told(tmp_path):
    with pytest.raises(InputError) as caught:
        find_images([tmp_path, tmp_path / "one", tmp_path / "two"])
    assert caught.value.problems == [
        f"{tmp_path}/one: must be an image or a folder, but there is nothing",
        f"{tmp_path}/two: must be an image or a folder, but there is nothing",
    ]


def test_folders_without_images_are_an_input_error(tmp_path):
    with pytest.raises(InputError, match=r"no image found in .*endings .*\.png"):
        find_images([tmp_path])


def describe(folder, **values):
    folder.mkdir(exist_ok=True)
    (folder / "model.json").write_text(json.dumps({**DESCRIPTION.model_dump(), **values}))


def test_f50_a_model_other_than_the_one_described_is_never_loaded(tmp_path):
    (tmp_path / "model.keras").write_bytes(b"PK planted")
    describe(tmp_path)
    for path in (tmp_path, tmp_path / "model.keras"):
        with pytest.raises(InputError, match="must be the model described beside it, but its sha256 differs"):
            Classifier.load(path)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [(None, "No such file"), ("{", "Invalid JSON"), ('{"classes": ["a"]}', "threshold"), ("[]", "Input should be")],
)
def test_a_description_that_is_missing_or_wrong_is_an_input_error(tmp_path, content, complaint):
    (tmp_path / "model.keras").write_bytes(b"PK")
    if content is not None:
        (tmp_path / "model.json").write_text(content)
    with pytest.raises(InputError, match=complaint) as caught:
        Classifier.load(tmp_path)
    assert str(caught.value).startswith(f"{tmp_path} must hold model.keras and model.json as `retrain` made them, but ")


def test_a_missing_model_is_an_input_error(tmp_path):
    describe(tmp_path)
    with pytest.raises(InputError, match=r"must hold model\.keras and model\.json .*No such file"):
        Classifier.load(tmp_path)


@pytest.mark.slow
def test_f50_a_model_that_brings_code_of_its_own_is_refused_even_where_its_description_fits(tmp_path, cpus):
    import keras

    images = keras.Input((32, 32, 3))
    planted = keras.layers.Lambda(lambda x: x, name="planted")(images)
    keras.Model(images, planted).save(tmp_path / "model.keras")
    describe(tmp_path, sha256=sha256(tmp_path / "model.keras"))
    with pytest.raises(InputError, match=r"must be a Keras model without code of its own, .* arbitrary code execution"):
        Classifier.load(tmp_path)
    keras.Model(images, keras.layers.GlobalAveragePooling2D()(images)).save(tmp_path / "model.keras")
    describe(tmp_path, sha256=sha256(tmp_path / "model.keras"))
    assert Classifier.load(tmp_path).probabilities(np.full((1, 32, 32, 1), 7, np.uint8)).tolist() == [[7, 7, 7]]

import hashlib

import numpy as np
import pytest
from PIL import Image

from trainable.dataset import ImageSet, build_arrays, concatenate, decode
from trainable.errors import InputError
from trainable.settings import DataSettings
from trainable.split import SplitRow

PARTS = {"train": 4, "validation": 2, "test": 2}


def save(root, file, value):
    path = root / file
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.tile(np.linspace(0, value, 40).astype(np.uint8), (40, 1))
    Image.fromarray(pixels).save(path)
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def study(tmp_path):
    """Settings and rows of eight images of two classes; classes take turns."""
    rows, value = [], 100
    for part, count in PARTS.items():
        for index in range(count):
            name = ("ill", "well")[index % 2]
            file = f"{name}/{part}{index}.png"
            rows.append(SplitRow(file, save(tmp_path / "data", file, value), name, f"group {index}", part))
            value += 10
    return DataSettings(path=tmp_path / "data", image_size=32), tuple(rows)


def test_a_part_becomes_arrays_in_the_order_of_its_rows(study, tmp_path):
    settings, rows = study
    told = []
    train = build_arrays(tmp_path / "arrays", settings, rows, "train", lambda *counts: told.append(counts))
    assert (train.images.shape, train.images.dtype) == ((4, 32, 32, 1), np.uint8)
    assert isinstance(train.images, np.memmap)
    assert not train.images.flags.writeable
    assert train.labels.tolist() == [0, 1, 0, 1]
    assert train.labels.dtype == np.int64
    assert train.files == ("ill/train0.png", "well/train1.png", "ill/train2.png", "well/train3.png")
    assert train.groups == ("group 0", "group 1", "group 2", "group 3")
    assert train.classes == ("ill", "well")
    assert len(train) == 4
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]
    for pixels, file in zip(train.images, train.files, strict=True):
        assert np.array_equal(pixels, decode(settings.path / file, 32, "grey", settings.max_pixels))


def test_colour_and_size_are_those_of_the_settings(study, tmp_path):
    settings, rows = study
    coloured = settings.model_copy(update={"colour": "rgb", "image_size": 48})
    assert build_arrays(tmp_path / "arrays", coloured, rows, "validation").images.shape == (2, 48, 48, 3)


def test_building_train_and_validation_touches_no_test_image(study, tmp_path):
    settings, rows = study
    for row in rows:
        if row.part == "test":
            (settings.path / row.file).unlink()
    for part in ("train", "validation"):
        build_arrays(tmp_path / "arrays", settings, rows, part)
    assert not list((tmp_path / "arrays").glob("test*"))
    with pytest.raises(InputError, match=r"ill/test0\.png: No such file"):
        build_arrays(tmp_path / "arrays", settings, rows, "test")


def test_built_arrays_are_used_again_without_the_images(study, tmp_path):
    settings, rows = study
    first = build_arrays(tmp_path / "arrays", settings, rows, "train").images.copy()
    moved = settings.model_copy(update={"path": tmp_path / "gone"})
    assert np.array_equal(build_arrays(tmp_path / "arrays", moved, rows, "train").images, first)


def test_other_settings_or_rows_build_anew(study, tmp_path):
    settings, rows = study
    build_arrays(tmp_path / "arrays", settings, rows, "train")
    larger = settings.model_copy(update={"image_size": 40})
    assert build_arrays(tmp_path / "arrays", larger, rows, "train").images.shape == (4, 40, 40, 1)
    assert len(build_arrays(tmp_path / "arrays", larger, rows[1:], "train")) == 3


def test_a_lost_file_of_a_built_part_is_built_anew(study, tmp_path):
    settings, rows = study
    for ending in ("npy", "csv", "json"):
        build_arrays(tmp_path / "arrays", settings, rows, "train")
        (tmp_path / f"arrays/train.{ending}").unlink()
        with pytest.raises(InputError, match=f"train.{ending} is missing"):
            ImageSet.open(tmp_path / "arrays", "train")
        assert len(build_arrays(tmp_path / "arrays", settings, rows, "train")) == 4


def test_all_files_that_changed_vanished_or_broke_are_told(study, tmp_path):
    settings, rows = study
    save(settings.path, "ill/train0.png", 7)
    (settings.path / "well/train1.png").unlink()
    with pytest.raises(InputError) as caught:
        build_arrays(tmp_path / "arrays", settings, rows, "train")
    changed, vanished = caught.value.problems
    assert changed.startswith("ill/train0.png changed since the split was made")
    assert vanished == "well/train1.png: No such file or directory"
    assert list((tmp_path / "arrays").iterdir()) == []


def test_a_failed_rebuild_does_not_pass_for_the_old_arrays(study, tmp_path):
    settings, rows = study
    build_arrays(tmp_path / "arrays", settings, rows, "train")
    (settings.path / "ill/train0.png").unlink()
    with pytest.raises(InputError):
        build_arrays(tmp_path / "arrays", settings.model_copy(update={"image_size": 40}), rows, "train")
    with pytest.raises(InputError, match=r"train\.json is missing"):
        ImageSet.open(tmp_path / "arrays", "train")


def test_an_empty_part_is_an_input_error(study, tmp_path):
    settings, rows = study
    with pytest.raises(InputError, match="part `test` must hold images"):
        build_arrays(tmp_path / "arrays", settings, [row for row in rows if row.part != "test"], "test")


def test_f38_arrays_that_changed_on_disk_are_refused_and_decoded_again(study, tmp_path):
    settings, rows = study
    whole = build_arrays(tmp_path / "arrays", settings, rows, "train").images.copy()
    for name in ("train.npy", "train.csv"):
        path = tmp_path / "arrays" / name
        content = path.read_bytes()
        for damaged in (content[:100], content[:-9] + bytes([content[-9] ^ 1]) + content[-8:], b""):
            path.write_bytes(damaged)
            with pytest.raises(InputError, match=f"must hold the part `train` as it was decoded, but {name} changed"):
                ImageSet.open(tmp_path / "arrays", "train")
        again = build_arrays(tmp_path / "arrays", settings, rows, "train")
        assert np.array_equal(again.images, whole)
        assert path.read_bytes() == content
    (tmp_path / "arrays" / "train.npy").write_bytes(b"")
    save(settings.path, "ill/train0.png", 7)
    with pytest.raises(InputError, match=r"ill/train0\.png changed since the split was made"):
        build_arrays(tmp_path / "arrays", settings, rows, "train")


def test_train_and_validation_are_put_after_each_other(study, tmp_path):
    settings, rows = study
    train, validation = (build_arrays(tmp_path / "arrays", settings, rows, part) for part in ("train", "validation"))
    both = concatenate(train, validation)
    assert both.files == train.files + validation.files
    assert both.labels.tolist() == [0, 1, 0, 1, 0, 1]
    assert np.array_equal(both.images[4:], validation.images)
    with pytest.raises(ValueError, match="same classes"):
        concatenate(train, ImageSet(train.images, train.labels, train.files, train.groups, ("other",)))

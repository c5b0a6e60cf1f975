import io
import json

import numpy as np
import pytest
from PIL import Image

from analysis.thumbnails import LARGEST, thumbnails


def write_arrays(folder, images, classes, groups, part="train"):
    folder.mkdir(exist_ok=True)
    np.save(folder / f"{part}.npy", images)
    rows = "".join(f"{n}.png,0,{name},0,{group}\n" for n, (name, group) in enumerate(zip(classes, groups, strict=True)))
    (folder / f"{part}.csv").write_text(f"file,sha256,class,label,group\n{rows}", encoding="utf-8")
    (folder / f"{part}.json").write_text(json.dumps({"classes": sorted(set(classes))}), encoding="utf-8")
    return folder


def grey(levels, size=8):
    return np.stack([np.full((size, size, 1), level, np.uint8) for level in levels])


def levels(files):
    return [int(np.asarray(Image.open(io.BytesIO(file))).flat[0]) for file in files]


def test_a_class_is_shown_by_images_of_different_groups(tmp_path):
    arrays = write_arrays(tmp_path / "a", grey([10, 11, 20, 30, 99]), ["ill"] * 4 + ["well"], ["g", "g", "h", "i", "j"])
    shown = thumbnails(arrays, per_class=3)
    assert {name: levels(files) for name, files in shown.items()} == {"ill": [10, 20, 30], "well": [99]}


def test_a_class_may_begin_like_a_formula(tmp_path):
    arrays = write_arrays(tmp_path / "a", grey([10, 20]), ["'+ve", "'-ve"], ["g", "h"])
    (arrays / "train.json").write_text(json.dumps({"classes": ["+ve", "-ve"]}), encoding="utf-8")
    assert {name: levels(files) for name, files in thumbnails(arrays).items()} == {"+ve": [10], "-ve": [20]}


def test_with_few_groups_others_of_them_fill_up(tmp_path):
    arrays = write_arrays(tmp_path / "a", grey([10, 11, 12]), ["ill"] * 3, ["g", "g", "g"])
    assert levels(thumbnails(arrays, per_class=2)["ill"]) == [10, 11]


def test_large_images_are_made_small_and_colours_stay(tmp_path):
    red = np.zeros((1, 300, 150, 3), np.uint8)
    red[..., 0] = 200
    (file,) = thumbnails(write_arrays(tmp_path / "a", red, ["ill"], ["g"]))["ill"]
    image = Image.open(io.BytesIO(file))
    assert max(image.size) == LARGEST
    assert image.getpixel((3, 3)) == (200, 0, 0)


def test_images_of_the_test_part_are_never_opened(tmp_path):
    arrays = write_arrays(tmp_path / "a", grey([50]), ["ill"], ["g"], part="test")
    assert thumbnails(arrays) == {}


@pytest.mark.parametrize("gone", ["train.npy", "train.csv", "train.json"])
def test_arrays_that_are_not_whole_give_none(tmp_path, gone):
    arrays = write_arrays(tmp_path / "a", grey([50]), ["ill"], ["g"])
    (arrays / gone).unlink()
    assert thumbnails(arrays) == {}


def test_a_table_of_another_length_gives_none(tmp_path):
    arrays = write_arrays(tmp_path / "a", grey([50]), ["ill"], ["g"])
    np.save(arrays / "train.npy", grey([50, 51]))
    assert thumbnails(arrays) == {}

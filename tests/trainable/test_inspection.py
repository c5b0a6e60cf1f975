"""What an inspection says of healthy folders; broken and hostile ones are in tests/faults/test_images.py."""

import hashlib
import os

import numpy as np
import pytest
from PIL import Image

from trainable.errors import InputError
from trainable.inspection import inspect_images, some
from trainable.settings import DataSettings


def picture(seed, size=48):
    coarse = np.random.default_rng(seed).integers(0, 255, (6, 6), dtype=np.uint8)
    return Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC)


def save(root, file, seed, mode="L"):
    path = root / file
    path.parent.mkdir(parents=True, exist_ok=True)
    picture(seed).convert(mode).save(path)
    return path


@pytest.fixture
def root(tmp_path):
    """Two classes of four different images, one of them in a folder further down."""
    for index in range(4):
        save(tmp_path / "data", f"ill/deeper/{index}.png" if index == 3 else f"ill/{index}.png", index)
        save(tmp_path / "data", f"well/{index}.png", 10 + index)
    return tmp_path / "data"


def inspect(root, **settings):
    return inspect_images(DataSettings(path=root, **settings))


def reasons(root, **settings):
    return {entry.file: entry.reason for entry in inspect(root, **settings).unreadable}


def problems(root, **settings):
    return inspect(root, **settings).problems(DataSettings(path=root, **settings))


def test_every_image_is_described(root):
    inspection = inspect(root)
    assert inspection.classes == ("ill", "well")
    assert [image.file for image in inspection.images][:5] == [
        "ill/0.png",
        "ill/1.png",
        "ill/2.png",
        "ill/deeper/3.png",
        "well/0.png",
    ]
    first = inspection.images[0]
    assert (first.class_name, first.width, first.height, first.mode, first.format) == ("ill", 48, 48, "L", "PNG")
    assert first.sha256 == hashlib.sha256((root / "ill/0.png").read_bytes()).hexdigest()
    assert (
        inspection.unreadable == inspection.exact_duplicates == inspection.near_duplicates == inspection.warnings == ()
    )
    assert problems(root) == []


def test_progress_is_told_after_each_file(root):
    told = []
    inspect_images(DataSettings(path=root), lambda done, total: told.append((done, total)))
    assert told == [(done, 8) for done in range(1, 9)]


def test_a_folder_that_is_not_there_is_an_input_error(tmp_path):
    with pytest.raises(InputError, match="absent: No such file"):
        inspect(tmp_path / "absent")
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="file: Not a directory"):
        inspect(tmp_path / "file")


def test_hidden_files_and_folders_are_ignored(root):
    (root / "ill/.DS_Store").write_bytes(b"x")
    save(root, ".thumbnails/a.png", 0)
    save(root, "ill/.cache/a.png", 0)
    assert inspect(root).classes == ("ill", "well")
    assert len(inspect(root).images) == 8
    assert reasons(root) == {}


def test_a_link_to_a_file_inside_is_followed(root):
    (root / "ill/link.png").symlink_to("0.png")
    assert inspect(root).exact_duplicates == (("ill/0.png", "ill/link.png"),)


@pytest.mark.parametrize("linked", ["ill/site", "third"])
@pytest.mark.parametrize(
    ("there", "reason"), [(True, "leaves the data folder"), (False, "leads nowhere or in a circle")]
)
def test_a_folder_that_is_not_read_is_a_problem_however_few_entries_it_is(root, tmp_path, linked, there, reason):
    if there:
        save(tmp_path / "elsewhere", "a.png", 60)
    (root / linked).symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    [told] = problems(root, max_unreadable_share=1)
    assert f"every folder must be one that is read, but 1 are not: `{linked} (a link that {reason})`; make" in told


def test_a_class_that_is_a_link_is_told_where_it_is_missed(tmp_path):
    save(tmp_path / "data", "well/a.png", 0)
    (tmp_path / "data/ill").symlink_to(tmp_path, target_is_directory=True)
    told = " / ".join(problems(tmp_path / "data"))
    assert "holds only `well`" in told
    assert "`ill (a link that leaves the data folder)`" in told


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_what_may_not_be_read_is_listed(root):
    (root / "ill/0.png").chmod(0)
    (root / "ill/deeper").chmod(0)
    try:
        assert reasons(root) == {"ill/0.png": "Permission denied", "ill/deeper": "the folder: Permission denied"}
    finally:
        (root / "ill/deeper").chmod(0o755)


def test_copies_are_found_exact_and_near(root):
    (root / "ill/copy.png").write_bytes((root / "ill/0.png").read_bytes())
    picture(0, size=90).save(root / "ill/larger.png")
    inspection = inspect(root)
    assert inspection.exact_duplicates == (("ill/0.png", "ill/copy.png"),)
    assert inspection.near_duplicates == (("ill/0.png", "ill/copy.png", "ill/larger.png"),)
    assert inspection.warnings == ()


def test_the_same_image_in_two_classes_is_a_warning_and_no_problem(root):
    (root / "well/copy.png").write_bytes((root / "ill/0.png").read_bytes())
    assert "`ill/0.png = well/copy.png`" in inspect(root).warnings[0]
    assert problems(root) == []


def test_sixteen_bit_images_and_images_beside_the_classes_are_pointed_out(root):
    Image.fromarray(np.full((40, 40), 4095, dtype=np.uint16)).save(root / "ill/deep.png")
    save(root, "stray.png", 1)
    (root / "groups.csv").touch()
    sixteen, beside = inspect(root).warnings
    assert "1 images hold 16 bit per pixel: `ill/deep.png`" in sixteen
    assert "1 images lie beside the class folders and are not used: `stray.png`" in beside


def test_all_problems_are_told_at_once(root):
    (root / "empty").mkdir()
    save(root, "few/0.png", 40)
    for index in range(2):
        (root / f"well/bad{index}.png").touch()
    found = problems(root, positive_class="Ill")
    assert len(found) == 4
    assert "the nearest is `ill`" in found[0]
    assert "2 of 11 are: `well/bad0.png (the file is empty)`" in found[1]
    assert "class folder `empty` must hold readable images" in found[2]
    assert "`few` has only 1" in found[3]


def test_the_nearest_class_is_found_whatever_the_case(tmp_path):
    for index in range(3):
        save(tmp_path, f"COVID/{index}.png", index)
        save(tmp_path, f"NonCOVID/{index}.png", 10 + index)
    assert problems(tmp_path, positive_class="covid")[0].endswith("got `covid`; the nearest is `COVID`")


def test_some_names_a_few_and_counts_the_rest():
    assert some(["a", "b"]) == "`a`, `b`"
    assert some(["a", "b", "c", "d", "e"]) == "`a`, `b`, `c` and 2 more"

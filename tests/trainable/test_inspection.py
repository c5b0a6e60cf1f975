import hashlib
import os
import socket

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


def test_files_without_an_image_are_listed_with_their_reason(root):
    (root / "ill/empty.png").touch()
    (root / "ill/note.txt").write_text("no image")
    whole = save(root, "ill/half.png", 5).read_bytes()
    (root / "ill/half.png").write_bytes(whole[: len(whole) // 2])
    Image.new("1", (3000, 3000)).save(root / "well/bomb.png")
    Image.new("F", (8, 8), 0.5).save(root / "well/float.tiff")
    found = reasons(root, max_pixels=5_000_000)
    assert found["ill/empty.png"] == "the file is empty"
    assert "no image" in found["ill/note.txt"]
    assert "cannot be decoded" in found["ill/half.png"]
    assert "3000 x 3000" in found["well/bomb.png"]
    assert "whole numbers" in found["well/float.tiff"]
    assert len(found) == 5


@pytest.mark.timeout(30)
def test_pipes_sockets_and_wandering_links_are_listed_and_never_followed(root, tmp_path):
    os.mkfifo(root / "ill/pipe.png")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.path.relpath(root / "ill/socket.png"))
    outside = save(tmp_path, "outside.png", 3)
    (root / "ill/out.png").symlink_to(outside)
    (root / "ill/broken.png").symlink_to("nowhere.png")
    (root / "ill/circle.png").symlink_to("circle.png")
    (root / "ill/up").symlink_to("..", target_is_directory=True)
    (root / "linked_class").symlink_to(tmp_path, target_is_directory=True)
    found = reasons(root)
    assert {file: reason.split("(")[0].strip() for file, reason in found.items()} == {
        "ill/pipe.png": "not a regular file",
        "ill/socket.png": "not a regular file",
        "ill/out.png": "a link that leaves the data folder",
        "ill/broken.png": "a link that leads nowhere or in a circle",
        "ill/circle.png": "a link that leads nowhere or in a circle",
        "ill/up": "a link to a folder; only links to files are followed",
        "linked_class": "a link that leaves the data folder",
    }
    assert inspect(root).classes == ("ill", "well")


def test_a_link_to_a_file_inside_is_followed(root):
    (root / "ill/link.png").symlink_to("0.png")
    assert inspect(root).exact_duplicates == (("ill/0.png", "ill/link.png"),)


def test_names_that_are_not_utf8_are_listed(root):
    for name in (b"ill/\xff.png", b"caf\xe9/a.png"):
        path = root / os.fsdecode(name)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes((root / "ill/0.png").read_bytes())
    assert reasons(root) == {
        "ill/\\xff.png": "the name is not UTF-8; rename it",
        "caf\\xe9": "the name is not UTF-8; rename it",
    }


def test_odd_names_are_no_obstacle(root):
    for name in ("=1+1.png", "two\nlines.png", "100%.png", "ü 😀.png"):
        save(root, f"ill/{name}", 20)
    assert {"ill/=1+1.png", "ill/two\nlines.png"} <= {image.file for image in inspect(root).images}
    assert reasons(root) == {}


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_what_may_not_be_read_is_listed(root):
    (root / "ill/0.png").chmod(0)
    (root / "ill/deeper").chmod(0)
    try:
        assert reasons(root) == {"ill/0.png": "Permission denied", "ill/deeper": "the folder: Permission denied"}
    finally:
        (root / "ill/deeper").chmod(0o755)


def test_content_decides_and_a_wrong_ending_is_noted(root):
    picture(30).save(root / "ill/photo.png", "JPEG")
    picture(31).save(root / "ill/photo.jpeg", "JPEG")
    inspection = inspect(root)
    assert {image.format for image in inspection.images if "photo" in image.file} == {"JPEG"}
    assert [warning for warning in inspection.warnings if "ending" in warning] == [
        "1 files are read by content because their ending says otherwise: `ill/photo.png`"
    ]


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


def test_a_folder_without_classes_or_with_one_is_a_problem(tmp_path):
    assert "holds no folder" in problems(tmp_path)[0]
    for index in range(4):
        save(tmp_path, f"only/{index}.png", index)
    assert problems(tmp_path) == [f"{tmp_path} must hold at least two class folders, but holds only `only`"]


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


def test_unreadable_files_up_to_the_limit_stop_nothing(root):
    (root / "well/bad.png").touch()
    assert problems(root, max_unreadable_share=1 / 9) == []
    assert len(problems(root, max_unreadable_share=0.11)) == 1


def test_some_names_a_few_and_counts_the_rest():
    assert some(["a", "b"]) == "`a`, `b`"
    assert some(["a", "b", "c", "d", "e"]) == "`a`, `b`, `c` and 2 more"

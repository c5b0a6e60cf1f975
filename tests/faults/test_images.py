"""Image files that are broken, hostile or not what they seem, and folders of them in odd shapes."""

import os
import socket
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from search import cli
from trainable.decoding import decode, open_image, read_image_file
from trainable.errors import InputError
from trainable.groups import assign_groups
from trainable.inspection import inspect_images
from trainable.predict import find_images
from trainable.preparation import prepare
from trainable.settings import DataSettings, ModelSettings
from trainable.split import given_split, make_split

LIMIT = 50_000_000

pytestmark = pytest.mark.filterwarnings(r"ignore:::PIL\.")  # pytest puts its own filters over those of the module


def picture(seed, size=48):
    coarse = np.random.default_rng(seed).integers(0, 255, (6, 6), dtype=np.uint8)
    return Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC)


def save(root, file, image, **options):
    path = root / file
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)
    return path


@pytest.fixture
def root(tmp_path):
    """Two classes of six different images."""
    for seed in range(12):
        save(tmp_path / "data", f"{('ill', 'well')[seed % 2]}/{seed}.png", picture(seed))
    return tmp_path / "data"


def inspect(root, **settings):
    return inspect_images(DataSettings(path=root, **settings))


def problems(root, **settings):
    return inspect(root, **settings).problems(DataSettings(path=root, **settings))


def reasons(root, **settings):
    return {entry.file: entry.reason for entry in inspect(root, **settings).unreadable}


def mean(path):
    return float(decode(path, 32, "grey", LIMIT).mean())


# F45: bad images


@pytest.fixture
def broken(root):
    """Ten files among the twelve good ones that give no image, and a word of the reason for each."""
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64), dtype=np.uint8))
    contents = {"empty.png": b"", "text.jpg": b"no image at all\n", "page.png": b"<html>404</html>"}
    for name in ("cut.png", "cut.jpg", "cut.tiff", "cut.gif", "cut.webp"):
        whole = save(root, f"ill/{name}", noise).read_bytes()
        contents[name] = whole[: len(whole) * 2 // 3]
    for name, content in contents.items():
        (root / "ill" / name).write_bytes(content)
    save(root, "ill/float.tiff", Image.new("F", (8, 8), 0.5))
    save(root, "ill/wide.tiff", Image.new("I", (8, 8), -1000))
    words = {"empty.png": "the file is empty", "text.jpg": "no image", "page.png": "no image", "float.tiff": "whole"}
    words["wide.tiff"] = "whole"
    return {f"ill/{name}": words.get(name, "decode") for name in [*contents, "float.tiff", "wide.tiff"]}


def test_f45_every_bad_image_is_listed_with_its_path_and_reason(root, broken):
    found = reasons(root)
    assert found.keys() == broken.keys()
    for file, word in broken.items():
        assert word in found[file] or "cannot be" in found[file]
    assert len(inspect(root).images) == 12


def test_f45_up_to_the_share_that_is_allowed_they_are_skipped_and_above_it_nothing_starts(root, broken):
    count, total = len(broken), len(broken) + 12
    assert problems(root, max_unreadable_share=count / total) == []
    [problem] = problems(root, max_unreadable_share=count / total - 0.001)
    assert f"but {count} of {total} are: `ill/cut.gif (" in problem
    settings = DataSettings(path=root, max_unreadable_share=0.5, groups="none")
    assert {row.file for row in make_split(inspect_images(settings), settings, 0)}.isdisjoint(broken)


def test_f45_too_many_bad_images_end_the_command_with_exit_code_2(root, broken, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["thawline", "data", "check", str(root)])
    assert cli._exit_code() == 2
    said = capsys.readouterr()
    assert "unreadable: 10" in said.out
    assert "ill/empty.png: the file is empty" in said.out
    assert "error: at most 5.0% of the files may be unreadable" in said.err


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA", "P", "CMYK", "1", "HSV", "YCbCr", "I;16"])
def test_f45_every_pixel_format_gives_the_same_grey(tmp_path, mode):
    grey = Image.new("L", (40, 40), 255 if mode == "1" else 137)
    if mode == "I;16":
        image = Image.fromarray(np.full((40, 40), 137 * 257, dtype=np.uint16))
    else:
        image = grey.convert("RGB").convert(mode) if mode in ("CMYK", "HSV", "YCbCr") else grey.convert(mode)
    name = {"CMYK": "a.tiff", "YCbCr": "a.jpg"}.get(mode, "a.png")
    path = save(tmp_path, name, image.convert("RGB") if mode == "HSV" else image)
    assert mean(path) == pytest.approx(255 if mode == "1" else 137, abs=1)


def test_f45_a_cmyk_photograph_is_read_as_the_colours_it_shows(tmp_path):
    path = save(tmp_path, "a.jpg", Image.new("RGB", (40, 40), (200, 30, 90)).convert("CMYK"), quality=100)
    assert decode(path, 32, "rgb", LIMIT)[16, 16].tolist() == pytest.approx([200, 30, 90], abs=4)


def test_f45_a_palette_with_a_transparent_colour_lies_over_black(tmp_path):
    image = Image.new("P", (40, 40), 1)
    image.putpalette([255, 255, 255, 200, 200, 200])
    assert mean(save(tmp_path, "clear.png", image, transparency=1)) == 0
    assert mean(save(tmp_path, "solid.png", image, transparency=0)) == 200


def test_f45_an_animation_gives_its_first_frame_and_one_pixel_a_whole_image(tmp_path):
    frames = [Image.new("L", (40, 40), value) for value in (50, 150, 250)]
    assert mean(save(tmp_path, "moving.gif", frames[0], save_all=True, append_images=frames[1:])) == 50
    pixels = decode(save(tmp_path, "one.png", Image.new("L", (1, 1), 77)), 32, "grey", LIMIT)
    assert pixels.shape == (32, 32, 1)
    assert (pixels == 77).all()


def test_f45_a_wrong_ending_is_read_by_content_and_pointed_out(root):
    save(root, "ill/photo.png", picture(30), format="JPEG")
    inspection = inspect(root)
    assert {image.format for image in inspection.images if "photo" in image.file} == {"JPEG"}
    assert "1 files are read by content because their ending says otherwise: `ill/photo.png`" in inspection.warnings


# F46: decompression bombs


def png_header(width, height):
    """A PNG that declares a size and holds nothing of it."""

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 6, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0" * 1000))
        + chunk(b"IEND", b"")
    )


GROWTH = '''
import sys
from pathlib import Path
from trainable.decoding import decode
from trainable.errors import InputError
from trainable.inspection import inspect_images
from trainable.settings import DataSettings

def memory(which):
    """VmHWM: the peak since the program began (getrusage tells the parent's, too); VmRSS: now."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(which))

folder = Path(sys.argv[1])
inspect_images(DataSettings(path=folder / "good"))  # whatever is loaded on first use is loaded now
before = memory("VmRSS")
inspection = inspect_images(DataSettings(path=folder / "bombs"))
for path in sorted((folder / "bombs").rglob("*.*")):
    try:
        decode(path, 64, "grey", 50_000_000)
        print("decoded", path)
    except InputError:
        pass
print(len(inspection.images), len(inspection.unreadable), memory("VmHWM") - before)
'''


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux tells a program's peak of memory")
def test_f46_bombs_are_refused_from_their_header_with_less_than_50_mb_of_memory(tmp_path):
    save(tmp_path, "good/a/1.png", picture(1))
    bombs = tmp_path / "bombs" / "a"
    save(bombs, "square.png", Image.new("L", (12_000, 12_000)))
    assert (bombs / "square.png").stat().st_size < 200_000
    save(bombs, "line.gif", Image.new("1", (65_000, 1_000)))
    save(bombs, "page.tiff", Image.new("1", (8_000, 8_000)), compression="group4")
    save(bombs, "photo.jpg", Image.new("L", (9_000, 9_000)))
    (bombs / "claim.png").write_bytes(png_header(100_000, 100_000))
    (bombs / "largest.png").write_bytes(png_header(2**31 - 1, 2**31 - 1))
    (bombs / "claim.ppm").write_bytes(b"P6 100000 100000 255\n")
    (bombs / "claim.bmp").write_bytes(
        b"BM" + struct.pack("<IHHIIiiHHIIiiII", 54, 0, 0, 54, 40, 100_000, 100_000, 1, 24, *[0] * 6)
    )
    with (bombs / "padded.png").open("wb") as stream:  # refused from its header, so its bytes are not read
        stream.write(png_header(100_000, 100_000))
        stream.truncate(300_000_000)
    with (bombs / "film.png").open("wb") as stream:  # no image at all, under an image's name
        stream.write(b"\x1aE\xdf\xa3")
        stream.truncate(300_000_000)
    told = subprocess.run(
        [sys.executable, "-c", GROWTH, str(tmp_path)], capture_output=True, text=True, timeout=120, check=True
    )
    images, unreadable, grown = map(int, told.stdout.split())
    assert (images, unreadable) == (0, 10)
    assert grown < 50e6


def test_f46_the_reason_is_the_size_that_the_header_declares(tmp_path):
    path = tmp_path / "claim.png"
    for side, came in ((10_000, "10000 x 10000"), (100_000, r"more: .*10000000000 pixels")):
        path.write_bytes(png_header(side, side))
        with pytest.raises(InputError, match=rf"at most 50,000,000 pixels .* the header declares {came}"):
            decode(path, 32, "grey", LIMIT)
    with pytest.raises(ValueError, match="less than or equal to 178956970"):
        DataSettings(path=tmp_path, max_pixels=178_956_971)


def test_f46_no_limit_that_can_be_set_is_beyond_what_pillow_decodes(tmp_path):
    path = save(tmp_path, "wide.png", Image.new("1", (17_895_697, 10)))
    assert open_image(path.read_bytes(), 178_956_970).size == (17_895_697, 10)


def test_f46_a_large_honest_image_is_read(tmp_path):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (2400, 2400), dtype=np.uint8))
    path = save(tmp_path, "large.png", noise)
    assert path.stat().st_size > 4_000_000
    assert mean(path) == pytest.approx(127, abs=1)


# F47: shapes of data sets


def test_f47_empty_classes_a_single_class_and_classes_of_one_image_are_refused_together(root, tmp_path):
    (root / "none").mkdir()
    save(root, "single/0.png", picture(40))
    assert problems(root) == [
        "class folder `none` must hold readable images, but holds none",
        "every class needs an image in each of the 3 parts, but `single` has only 1",
    ]
    for seed in range(4):
        save(tmp_path / "alone", f"only/{seed}.png", picture(seed))
    assert "must hold at least two class folders, but holds only `only`" in problems(tmp_path / "alone")[0]
    assert "holds no folder" in problems(tmp_path / "alone" / "only")[0]


def test_f47_one_image_per_class_is_refused(tmp_path):
    for seed, name in enumerate(("ill", "well")):
        save(tmp_path, f"{name}/a.png", picture(seed))
    assert [problem.split("but ")[1] for problem in problems(tmp_path)] == ["`ill` has only 1", "`well` has only 1"]


def split_file(root, parts):
    lines = "".join(f"{file},{part}\n" for file, part in parts.items())
    (root / "parts.csv").write_text(f"file,part\n{lines}")
    return root / "parts.csv"


def test_f47_a_class_in_validation_only_is_refused(root):
    inspection = inspect(root)
    parts = {
        image.file: "validation" if image.class_name == "well" or "/2." in image.file else "train"
        for image in inspection.images
    }
    groups = {image.file: image.file for image in inspection.images}
    with pytest.raises(
        InputError, match="every class must occur in every part, but `well`, in 6 groups, is missing in train"
    ):
        given_split(inspection, groups, split_file(root, parts))


def test_f47_a_duplicate_across_the_parts_of_a_given_split_is_refused_and_a_planned_split_keeps_it_together(root):
    (root / "ill" / "copy.png").write_bytes((root / "ill" / "0.png").read_bytes())
    settings = DataSettings(path=root, groups="none", split_file=root / "parts.csv")
    inspection = inspect_images(settings)
    parts = {
        image.file: ("train", "validation", "test")[position % 3] for position, image in enumerate(inspection.images)
    }
    parts |= {"ill/0.png": "train", "ill/copy.png": "test"}
    split_file(root, parts)
    with pytest.raises(
        InputError, match=r"a group must lie in one part, but `ill/0.png` is in several: .*copy.png \(test"
    ):
        make_split(inspection, settings, 0)
    for seed in range(5):
        rows = make_split(inspection, settings.model_copy(update={"split_file": None}), seed)
        part_of = {row.file: row.part for row in rows}
        assert part_of["ill/0.png"] == part_of["ill/copy.png"]


def test_f47_a_batch_larger_than_the_training_part_is_refused(root, tmp_path):
    data, model = DataSettings(path=root, groups="none", image_size=32), ModelSettings(weights="random")
    with pytest.raises(InputError, match=r"batch_size: must be at most the \d+ training images, but got 64"):
        prepare(data, model, {"freeze_depth": 1, "batch_size": 64}, tmp_path / "run", 0, lambda *_: None)
    assert not (tmp_path / "run").exists()


@pytest.mark.timeout(60)
def test_f47_pipes_sockets_and_wandering_links_are_listed_and_never_waited_for(root, tmp_path):
    os.mkfifo(root / "ill/pipe.png")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.path.relpath(root / "ill/socket.png"))
    outside = save(tmp_path, "outside.png", picture(3))
    (root / "ill/out.png").symlink_to(outside)
    (root / "ill/device.png").symlink_to("/dev/zero")
    (root / "ill/broken.png").symlink_to("nowhere.png")
    (root / "ill/circle.png").symlink_to("circle.png")
    (root / "ill/up").symlink_to("..", target_is_directory=True)
    (root / "linked_class").symlink_to(tmp_path, target_is_directory=True)
    found = reasons(root)
    assert {file: reason.split("(")[0].strip() for file, reason in found.items()} == {
        "ill/pipe.png": "not a regular file",
        "ill/socket.png": "not a regular file",
        "ill/out.png": "a link that leaves the data folder",
        "ill/device.png": "a link that leaves the data folder",
        "ill/broken.png": "a link that leads nowhere or in a circle",
        "ill/circle.png": "a link that leads nowhere or in a circle",
        "ill/up": "a link to a folder; only links to files are followed",
        "linked_class": "a link that leaves the data folder",
    }
    assert inspect(root).classes == ("ill", "well")
    assert find_images([root / "ill"]) == sorted(p for p in (root / "ill").iterdir() if p.suffix and p.is_file())


@pytest.mark.timeout(60)
def test_f47_a_pipe_in_place_of_any_file_is_refused_at_once(root, tmp_path, monkeypatch):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(InputError, match="not a regular file"):
        decode(pipe, 32, "grey", LIMIT)
    settings = DataSettings(path=root, groups=pipe)
    with pytest.raises(InputError, match="must be a CSV file, but is a folder, named pipe, socket or device"):
        assign_groups(inspect_images(settings), settings)
    model = ModelSettings(weights=pipe)
    with pytest.raises(InputError, match=r"model\.weights: must be imagenet, random or a readable file, .*regular"):
        prepare(DataSettings(path=root), model, {"freeze_depth": 1, "batch_size": 1}, tmp_path, 0, lambda *_: None)
    regular = (root / "ill" / "0.png").stat()
    monkeypatch.setattr(Path, "stat", lambda *_, **__: regular)  # a pipe takes the file's place after the look at it
    with pytest.raises(InputError, match="not a regular file"):
        read_image_file(pipe, LIMIT)

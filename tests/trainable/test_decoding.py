"""How pixels are read; broken and hostile files are in tests/faults/test_images.py."""

import io

import numpy as np
import pytest
from PIL import Image

from trainable.decoding import decode, open_image, upright_pixels
from trainable.errors import InputError

LIMIT = 1_000_000

pytestmark = pytest.mark.filterwarnings(r"ignore:::PIL\.")  # pytest puts its own filters over those of the module


def saved(tmp_path, image, name="image.png", **options):
    path = tmp_path / name
    image.save(path, **options)
    return path


def grey_of(tmp_path, image, **options):
    """The one grey value of an image of one colour, after a way through a file."""
    pixels = decode(saved(tmp_path, image, **options), 32, "grey", LIMIT)
    assert pixels.min() == pixels.max()
    return int(pixels[0, 0, 0])


def test_grey_has_one_channel_and_rgb_three(tmp_path):
    path = saved(tmp_path, Image.new("RGB", (50, 40), (255, 0, 0)))
    assert decode(path, 32, "grey", LIMIT).shape == (32, 32, 1)
    assert decode(path, 32, "rgb", LIMIT)[0, 0].tolist() == [255, 0, 0]
    assert decode(path, 32, "rgb", LIMIT).dtype == np.uint8


@pytest.mark.parametrize(("sixteen_bit", "eight_bit"), [(0, 0), (257, 1), (4095, 16), (32_768, 128), (65_535, 255)])
def test_sixteen_bit_values_are_scaled_and_not_clipped(tmp_path, sixteen_bit, eight_bit):
    image = Image.fromarray(np.full((40, 40), sixteen_bit, dtype=np.uint16))
    assert grey_of(tmp_path, image) == eight_bit
    assert grey_of(tmp_path, image, name="image.tiff") == eight_bit


def test_values_without_a_fixed_range_are_refused(tmp_path):
    floats = saved(tmp_path, Image.new("F", (8, 8), 0.5), "float.tiff")
    wide = saved(tmp_path, Image.new("I", (8, 8), -1000), "wide.tiff")
    for path in (floats, wide):
        with pytest.raises(InputError, match=r"whole numbers in 0\.\.65535"):
            decode(path, 32, "grey", LIMIT)


def test_transparent_pixels_lie_over_black(tmp_path):
    assert grey_of(tmp_path, Image.new("RGBA", (40, 40), (255, 255, 255, 0))) == 0
    assert grey_of(tmp_path, Image.new("LA", (40, 40), (200, 128))) == 100


def test_the_exif_orientation_is_respected(tmp_path):
    pixels = np.zeros((40, 40), dtype=np.uint8)
    pixels[:20] = 255  # bright above; turned by 90 degrees clockwise it is bright on the right
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = decode(saved(tmp_path, Image.fromarray(pixels), exif=exif), 32, "grey", LIMIT)[..., 0]
    assert turned[:, 24:].min() == 255
    assert turned[:, :8].max() == 0


def test_shrinking_averages_instead_of_picking_single_pixels(tmp_path):
    checkered = (np.indices((512, 512)).sum(axis=0) % 2 * 255).astype(np.uint8)
    shrunk = decode(saved(tmp_path, Image.fromarray(checkered)), 32, "grey", LIMIT)
    assert abs(shrunk.astype(int) - 127).max() <= 2


def test_what_is_no_image_is_refused_with_its_path(tmp_path):
    for content, reason in [(b"", "empty"), (b"hello", "no image"), (b"%!PS-Adobe-3.0 EPSF-3.0\n", "no image")]:
        path = tmp_path / "file.png"
        path.write_bytes(content)
        with pytest.raises(InputError, match=f"file.png: .*{reason}"):
            decode(path, 32, "grey", LIMIT)


def test_a_file_larger_than_any_allowed_image_is_not_read(tmp_path):
    path = tmp_path / "large.png"
    with path.open("wb") as stream:
        stream.truncate(16 * 100 + 1)
    with pytest.raises(InputError, match="1,601 bytes"):
        decode(path, 32, "grey", 100)


def test_damaged_bytes_never_raise_anything_but_an_input_error():
    random, reasons = np.random.default_rng(1), []
    for extension in ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP"):
        stream = io.BytesIO()
        Image.fromarray(random.integers(0, 255, (24, 24), dtype=np.uint8)).save(stream, extension)
        assert upright_pixels(open_image(stream.getvalue(), LIMIT), "rgb").size == (24, 24)
        for _ in range(60):
            data = np.frombuffer(stream.getvalue(), dtype=np.uint8).copy()
            data[random.integers(0, len(data), 4)] = random.integers(0, 255, 4)
            try:
                upright_pixels(open_image(data.tobytes(), LIMIT), "rgb")
            except InputError as error:
                reasons.append(str(error))
    assert len(reasons) > 100
    assert all(reasons)

"""Image files of unknown origin become arrays: by content rather than name, and refused before they can do harm."""

import os
import stat
import warnings
from io import BytesIO
from pathlib import Path
from typing import IO, Literal

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from trainable.dicom import is_dicom, open_dicom
from trainable.errors import InputError

Colour = Literal["grey", "rgb"]

CHANNELS = {"grey": 1, "rgb": 3}

DECODING = 1
"""Raised by one whenever the same file would decode to other pixels than before; part of the data fingerprint."""

# Raster formats only: Pillow would start Ghostscript for EPS, and some plug-ins were never meant for strangers' files.
FORMATS = ("PNG", "JPEG", "GIF", "BMP", "DIB", "TIFF", "WEBP", "PPM", "JPEG2000")

LARGE = 4_000_000  # bytes

# Remarks on metadata name no file, and declared pixels are compared with the user's limit; beyond the double of the
# one that Pillow warns at, it refuses by itself.
warnings.filterwarnings("ignore", module=r"PIL\.")


def read_image_file(path: Path, max_pixels: int) -> bytes:
    """Reads a file's bytes, unless it is no regular file (reading a named pipe would wait for ever) or is too large. Of
    a large file the header is looked at first, so that what is refused for it is not read.

    Raises:
        InputError: The reason, without the path.
    """
    try:
        _check_regular(path.stat())
        with os.fdopen(_open_without_waiting(path), "rb") as stream:
            status = os.fstat(stream.fileno())
            _check_regular(status)  # once more, of what was opened
            if status.st_size > 16 * max_pixels:  # four channels of 16 bit take 8 bytes; as much again for metadata
                raise InputError(f"{status.st_size:,} bytes are more than an image of {max_pixels:,} pixels can need")
            if status.st_size > LARGE and not is_dicom(stream.read(132)):
                _open_image(stream, max_pixels)
            stream.seek(0)
            return stream.read()
    except OSError as error:
        raise InputError(error.strerror or str(error)) from error


def open_image(data: bytes, max_pixels: int) -> Image.Image:
    """Reads an image's header; pixels are not decoded yet (but those of DICOM), and an animation stands at its first
    frame.

    Raises:
        InputError: Not an image in one of `FORMATS`, or one that declares more than `max_pixels` pixels.
    """
    if not data:
        raise InputError("the file is empty")
    return open_dicom(data, max_pixels) if is_dicom(data) else _open_image(BytesIO(data), max_pixels)


def _open_image(stream: IO[bytes], max_pixels: int) -> Image.Image:
    try:
        image = Image.open(stream, formats=FORMATS)
    except Image.DecompressionBombError as error:  # Pillow's own limit, which `max_pixels` can't be set beyond
        raise InputError(
            f"at most {max_pixels:,} pixels are decoded (`max_pixels`), but the header declares more: {error}"
        ) from error
    except UnidentifiedImageError as error:
        raise InputError(f"the content is no image of the formats {', '.join(FORMATS)}") from error
    except Exception as error:  # plug-ins raise anything from SyntaxError to struct.error on broken headers
        raise InputError(f"the image header cannot be read: {error}") from error
    if image.width * image.height > max_pixels:
        raise InputError(
            f"at most {max_pixels:,} pixels are decoded (`max_pixels`), "
            f"but the header declares {image.width} x {image.height}"
        )
    return image


def upright_pixels(image: Image.Image, colour: Colour) -> Image.Image:
    """Decodes a whole image to 8 bit per channel, turned as its EXIF orientation says.

    16-bit values are divided by 257 (65,535 becomes 255), the same for every image, so that brightness stays
    comparable. Transparent pixels lie over black. `grey` is the luma of ITU-R 601.

    Raises:
        InputError: Truncated or damaged pixels, or values without a fixed range (floats, 32 bit beyond 16 bit).
    """
    try:
        image.load()
        ImageOps.exif_transpose(image, in_place=True)
        if image.mode.startswith("I") or image.mode == "F":
            image = _eight_bit(image)
        if image.has_transparency_data:
            image = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, (0, 0, 0, 255)), image)
        return image.convert("L" if colour == "grey" else "RGB")
    except InputError:
        raise
    except Exception as error:  # as above: decoders raise OSError, SyntaxError, ValueError, struct.error, MemoryError …
        raise InputError(f"the pixels cannot be decoded: {error or type(error).__name__}") from error


def decode_bytes(data: bytes, image_size: int, colour: Colour, max_pixels: int) -> np.ndarray:
    """Like `decode`, for bytes already read; the reasons it raises name no file."""
    pixels = upright_pixels(open_image(data, max_pixels), colour)
    # Bilinear as Pillow does it widens its kernel when it shrinks, so nothing aliases, and unlike Lanczos it can't
    # overshoot: no bright rims around bones, no clipping. The aspect ratio is not kept.
    resized = pixels.resize((image_size, image_size), Image.Resampling.BILINEAR)
    return np.asarray(resized, dtype=np.uint8).reshape(image_size, image_size, CHANNELS[colour])


def decode(path: Path, image_size: int, colour: Colour, max_pixels: int) -> np.ndarray:
    """Decodes one image file.

    Returns:
        uint8 [image_size, image_size, channels], 0 to 255; one channel for `grey`, three (red, green, blue) for `rgb`.

    Raises:
        InputError: The path and why its file gives no image.
    """
    try:
        return decode_bytes(read_image_file(path, max_pixels), image_size, colour, max_pixels)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def _check_regular(status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise InputError("not a regular file (a folder, named pipe, socket or device)")


def _open_without_waiting(path: Path) -> int:
    """A descriptor; even of a named pipe, which may have taken the file's place just now, at once."""
    return os.open(path, os.O_RDONLY | os.O_NONBLOCK)


def _eight_bit(image: Image.Image) -> Image.Image:
    values = np.asarray(image)
    if image.mode == "F" or values.min() < 0 or values.max() > 65_535:
        raise InputError(
            f"pixels must be whole numbers in 0..65535, but mode {image.mode} holds {values.min():g} to "
            f"{values.max():g}; window and convert to 8 bit first"
        )
    return Image.fromarray(((values.astype(np.uint32) * 255 + 32_767) // 65_535).astype(np.uint8))

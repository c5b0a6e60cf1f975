"""DICOM slices become 8-bit images, through the window that the file itself asks for. Needs the extra `dicom`."""

import math
import warnings
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image

from trainable.errors import InputError

# A transfer syntax that is unpacked whole before its header can be read: a small file may become any size.
DEFLATED = b"1.2.840.10008.1.2.1.99"
META = 2048  # bytes at the start of a file in which its transfer syntax is named

Image.register_extension("DICOM", ".dcm")  # so that the ending counts as what the content is
warnings.filterwarnings("ignore", module=r"pydicom\.")  # remarks on tags name no file


def is_dicom(data: bytes) -> bool:
    """Whether the content is a DICOM file (part 10: a preamble of 128 bytes, then DICM)."""
    return data[128:132] == b"DICM"


def open_dicom(data: bytes, max_pixels: int) -> Image.Image:
    """Decodes the first frame.

    Grey values go through the modality transformation (to Hounsfield units in CT), then the file's first window, or
    from the smallest to the largest value where it has none; MONOCHROME1 is turned to white on black. Colour stays.

    Returns:
        Mode `L` or `RGB`, format `DICOM`.

    Raises:
        InputError: pydicom is not installed, the file holds no such image, or declares more than `max_pixels` pixels.
    """
    try:
        import pydicom
    except ImportError as error:
        raise InputError("DICOM needs the extra `dicom`: pip install 'thawline[dicom]'") from error
    if DEFLATED in data[:META]:
        raise InputError("deflated DICOM is not read; convert it to another transfer syntax")
    try:
        dataset = pydicom.dcmread(BytesIO(data))
        width, height, samples = int(dataset.Columns), int(dataset.Rows), int(dataset.SamplesPerPixel)
    except Exception as error:  # as with image headers: anything may be raised on broken ones
        raise InputError(f"the DICOM header cannot be read: {error}") from error
    if width * height > max_pixels:
        raise InputError(
            f"at most {max_pixels:,} pixels are decoded (`max_pixels`), but the header declares {width} x {height}"
        )
    image = Image.fromarray(_eight_bit(dataset, samples))
    image.format = "DICOM"
    return image


def windowed(values: np.ndarray, centre: float, width: float, function: str = "LINEAR") -> np.ndarray:
    """Grey values 0 to 255 as float, the way DICOM PS3.3 C.11.2.1.2 and C.11.2.1.3 define it.

    Args:
        values: After the modality transformation, in its units, as are `centre` and `width`.
        centre: What becomes the middle grey.
        width: What lies between black and white; at least 1 for LINEAR, above 0 for the others.
        function: LINEAR, LINEAR_EXACT or SIGMOID.

    Raises:
        InputError: for another function, a width that is too small, or numbers that are none.
    """
    if not (math.isfinite(centre) and math.isfinite(width)):
        raise InputError(f"the window's centre and width must be numbers, but are {centre:g} and {width:g}")
    if width < 1 if function == "LINEAR" else width <= 0:
        raise InputError(
            f"the window's width must be {'at least 1' if function == 'LINEAR' else 'above 0'}, but is {width:g}"
        )
    match function:
        case "LINEAR":
            shares = (values - (centre - 0.5)) / max(width - 1, 1e-9) + 0.5
        case "LINEAR_EXACT":
            shares = (values - centre) / width + 0.5
        case "SIGMOID":
            shares = 1 / (1 + np.exp(-4 * (values - centre) / width))
        case other:
            raise InputError(f"the window's function must be LINEAR, LINEAR_EXACT or SIGMOID, but is {other}")
    return 255 * np.clip(shares, 0, 1)


def _eight_bit(dataset: Any, samples: int) -> np.ndarray:
    """uint8 [height, width] or [height, width, 3]."""
    from pydicom.pixels.processing import apply_modality_lut
    from pydicom.pixels.utils import pixel_array

    try:
        kind = str(dataset.get("PhotometricInterpretation", ""))  # tags are read when they are asked for
        if kind not in ("MONOCHROME1", "MONOCHROME2") and samples != 3:
            raise InputError(
                f"DICOM pixels must be grey or red, green and blue, but are {kind or 'of no kind'}; convert to PNG"
            )
        stored = pixel_array(dataset, index=0)
        if samples == 3:
            return stored if stored.dtype == np.uint8 else (stored.astype(np.uint32) * 255 // 65_535).astype(np.uint8)
        values = np.asarray(apply_modality_lut(stored, dataset), dtype=np.float64)
        grey = _windowed_as_asked(dataset, stored, values).round().astype(np.uint8)
    except InputError:
        raise
    except Exception as error:  # as above; also compressions that no installed package reads
        raise InputError(f"the DICOM pixels cannot be decoded: {error}") from error
    return 255 - grey if kind == "MONOCHROME1" else grey


def _windowed_as_asked(dataset: Any, stored: np.ndarray, values: np.ndarray) -> np.ndarray:
    centre, width = _first(dataset.get("WindowCenter")), _first(dataset.get("WindowWidth"))
    if centre is not None and width is not None:
        return windowed(values, centre, width, str(dataset.get("VOILUTFunction", "LINEAR")))
    inside = values[stored != dataset.get("PixelPaddingValue")]  # what surrounds the scanned circle is no measurement
    low, high = (inside.min(), inside.max()) if inside.size else (0.0, 0.0)
    return windowed(values, (low + high) / 2, max(high - low, 1e-9), "LINEAR_EXACT")


def _first(value: Any) -> float | None:
    """A file may hold several windows."""
    from pydicom.multival import MultiValue

    several = list(value) if isinstance(value, MultiValue) else [value]
    return None if not several or several[0] is None else float(several[0])

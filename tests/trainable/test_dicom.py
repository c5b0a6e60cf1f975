"""DICOM slices, written here, come out as the grey values that their window asks for."""

import sys
from io import BytesIO

import numpy as np
import pytest

from trainable.decoding import decode, decode_bytes, open_image
from trainable.dicom import windowed
from trainable.errors import InputError
from trainable.inspection import inspect_images
from trainable.settings import DataSettings

LIMIT = 1_000_000


@pytest.fixture
def write():
    """Writes a slice as DICOM bytes; keywords are attributes of the data set."""
    reason = "pydicom is not installed: pip install 'thawline[dicom]'"
    pydicom = pytest.importorskip("pydicom", reason=reason)

    def write(stored, **attributes):
        stored = np.asarray(stored)
        dataset = pydicom.Dataset()
        dataset.file_meta = pydicom.dataset.FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
        dataset.file_meta.MediaStorageSOPClassUID = pydicom.uid.CTImageStorage
        dataset.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
        dataset.SOPClassUID = pydicom.uid.CTImageStorage
        dataset.Rows, dataset.Columns = stored.shape[:2]
        dataset.SamplesPerPixel = 3 if stored.ndim == 3 else 1
        dataset.PhotometricInterpretation = "RGB" if stored.ndim == 3 else "MONOCHROME2"
        if stored.ndim == 3:
            dataset.PlanarConfiguration = 0
        dataset.BitsAllocated = dataset.BitsStored = 8 * stored.dtype.itemsize
        dataset.HighBit = dataset.BitsStored - 1
        dataset.PixelRepresentation = int(stored.dtype.kind == "i")
        dataset.PixelData = stored.tobytes()
        for name, value in attributes.items():
            setattr(dataset, name, value)
        stream = BytesIO()
        dataset.save_as(stream, enforce_file_format=True)
        return stream.getvalue()

    return write


def _grey(data):
    return np.asarray(open_image(data, LIMIT)).tolist()


def test_values_go_through_rescaling_and_the_window_of_the_file(write):
    stored = np.array([[0, 424, 1024, 1624, 4000]], dtype=np.uint16)
    data = write(stored, RescaleSlope=1, RescaleIntercept=-1024, WindowCenter=-600, WindowWidth=1201)
    # Hounsfield units -1024, -600, 0, 600, 2976 in a window from -1200 to 0
    assert _grey(data) == [[38, 128, 255, 255, 255]]


def test_the_first_of_several_windows_is_taken(write):
    stored = np.array([[0, 50, 100]], dtype=np.uint16)
    data = write(stored, WindowCenter=[50.5, 1000], WindowWidth=[101, 5])
    assert _grey(data) == [[0, 128, 255]]


def test_without_a_window_values_reach_from_black_to_white(write):
    stored = np.array([[-100, 0, 100]], dtype=np.int16)
    assert _grey(write(stored)) == [[0, 128, 255]]


def test_padding_around_the_scan_is_black_and_sets_no_scale(write):
    stored = np.array([[-2000, -100, 100]], dtype=np.int16)
    assert _grey(write(stored, PixelPaddingValue=-2000)) == [[0, 0, 255]]


def test_a_flat_slice_has_one_value(write):
    assert len(set(_grey(write(np.full((1, 3), 7, dtype=np.uint16)))[0])) == 1


def test_monochrome1_is_turned_to_white_on_black(write):
    stored = np.array([[0, 255]], dtype=np.uint8)
    assert _grey(write(stored, PhotometricInterpretation="MONOCHROME1")) == [[255, 0]]


def test_the_first_frame_of_several_is_taken(write):
    stored = np.array([[0, 255], [255, 0]], dtype=np.uint8)
    assert _grey(write(stored, NumberOfFrames=2, Rows=1)) == [[0, 255]]


def test_colour_stays(write):
    stored = np.array([[[255, 0, 0], [0, 0, 255]]], dtype=np.uint8)
    assert np.asarray(open_image(write(stored), LIMIT)).tolist() == stored.tolist()


@pytest.mark.parametrize(
    ("function", "expected"),
    [("LINEAR", [0, 127.5, 255]), ("LINEAR_EXACT", [0, 127.5, 255]), ("SIGMOID", [255 / (1 + np.e**2), 127.5, None])],
)
def test_windows_are_those_of_the_standard(function, expected):
    centre, width = (50.5, 101) if function == "LINEAR" else (50, 100)
    came = windowed(np.array([0.0, 50.0, 100.0]), centre, width, function)
    assert came[:2] == pytest.approx(expected[:2])
    assert came[2] == pytest.approx(255 - came[0])


@pytest.mark.parametrize(
    ("width", "function", "expected"),
    [(0.5, "LINEAR", "at least 1"), (0, "LINEAR_EXACT", "above 0"), (9, "CUBIC", "but is CUBIC")],
)
def test_a_window_that_means_nothing_is_refused(width, function, expected):
    with pytest.raises(InputError, match=expected):
        windowed(np.zeros(1), 0, width, function)


def test_a_slice_decodes_like_any_image(write, tmp_path):
    path = tmp_path / "slice.dcm"
    path.write_bytes(write(np.full((40, 50), 200, dtype=np.uint8), WindowCenter=128, WindowWidth=256))
    pixels = decode(path, 32, "rgb", LIMIT)
    assert pixels.shape == (32, 32, 3)
    assert set(pixels.ravel().tolist()) == {200}


def test_a_folder_of_slices_is_inspected_without_remarks(write, tmp_path):
    for name in ("clear", "lesion"):
        (tmp_path / name).mkdir()
        stored = np.random.default_rng(len(name)).integers(0, 255, (32, 32), dtype=np.uint8)
        (tmp_path / name / "a.dcm").write_bytes(write(stored))
    found = inspect_images(DataSettings(path=tmp_path))
    assert [(image.file, image.format, image.mode) for image in found.images] == [
        ("clear/a.dcm", "DICOM", "L"),
        ("lesion/a.dcm", "DICOM", "L"),
    ]
    assert found.warnings == ()


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "but are PALETTE COLOR; convert to PNG"),
        ({"Rows": 4000, "Columns": 4000}, "at most 1,000,000 pixels are decoded"),
        ({"PixelData": b"\0"}, "the DICOM pixels cannot be decoded"),
        ({"Rows": None}, "the DICOM header cannot be read"),
        ({"WindowCenter": 1, "WindowWidth": 0}, "the window's width must be at least 1, but is 0"),
        ({"WindowCenter": "nan", "WindowWidth": 9}, "the window's centre and width must be numbers, but are nan and 9"),
    ],
)
def test_what_gives_no_image_has_its_reason(write, attributes, expected):
    with pytest.raises(InputError, match=expected):
        open_image(write(np.zeros((2, 2), dtype=np.uint8), **attributes), LIMIT)


def test_a_cut_off_file_has_its_reason(write):
    whole = write(np.zeros((8, 8), dtype=np.uint8))
    for length in range(132, len(whole), 40):
        with pytest.raises(InputError, match="DICOM"):
            open_image(whole[:length], LIMIT)


def test_a_tag_of_an_unknown_kind_has_its_reason(write):
    data = write(np.zeros((2, 2), dtype=np.uint8))
    tag = b"\x28\x00\x04\x00"  # PhotometricInterpretation
    assert data.count(tag + b"CS") == 1
    with pytest.raises(InputError, match=r"the DICOM pixels cannot be decoded: .*CR"):
        open_image(data.replace(tag + b"CS", tag + b"CR"), LIMIT)


def test_deflated_files_are_refused_before_they_are_unpacked(write):
    data = write(np.zeros((2, 2), dtype=np.uint8)).replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.1.99")
    with pytest.raises(InputError, match="deflated DICOM is not read"):
        open_image(data, LIMIT)


def test_without_pydicom_the_reason_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(InputError, match=r"pip install 'thawline\[dicom\]'"):
        decode_bytes(b"\0" * 128 + b"DICM" + b"\0" * 100, 32, "grey", LIMIT)


def test_a_window_with_a_decimal_comma_is_a_reason_like_any_other(write):
    data = write(np.zeros((2, 2), dtype=np.uint8), WindowCenter=405, WindowWidth=80)
    with pytest.raises(InputError, match="the DICOM pixels cannot be decoded"):
        open_image(data.replace(b"405.0 ", b"40,5  "), LIMIT)

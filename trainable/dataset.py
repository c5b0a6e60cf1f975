"""Images as arrays: each part of the split decoded once, kept in one file, and opened without reading it."""

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from trainable.decoding import CHANNELS, Colour, decode, decode_bytes, read_image_file
from trainable.errors import InputError
from trainable.inspection import THREADS
from trainable.settings import DataSettings, Part
from trainable.split import SplitRow, data_fingerprint
from trainable.whole_file import read_csv, whole_file, write_csv

__all__ = ["Colour", "ImageSet", "build_arrays", "concatenate", "decode"]

COLUMNS = ("file", "sha256", "class", "label", "group")


@dataclass(frozen=True, eq=False)
class ImageSet:
    """The images of one part.

    Attributes:
        images: uint8 [n, image_size, image_size, channels], 0 to 255; a read-only memory map when opened from disk.
        labels: int64 [n], positions in `classes`.
        files: n paths below the data folder.
        groups: n names of groups.
        classes: Names of all classes of the study, sorted.
    """

    images: np.ndarray
    labels: np.ndarray
    files: tuple[str, ...]
    groups: tuple[str, ...]
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.labels)

    @classmethod
    def open(cls, folder: Path, part: Part) -> "ImageSet":
        """Opens what `build_arrays` left in `folder`.

        Raises:
            InputError: The part was not built there, or its files don't belong together.
        """
        paths = _PartPaths(folder, part)
        missing = [path.name for path in (paths.arrays, paths.table, paths.description) if not path.is_file()]
        if missing:
            raise InputError(f"{folder} must hold the decoded part `{part}`, but {', '.join(missing)} is missing")
        rows = read_csv(paths.table)
        try:
            images = np.load(paths.arrays, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError) as error:
            raise InputError(f"{paths.arrays} must be a whole array file, but: {error}; delete {folder}") from error
        if len(images) != len(rows):
            raise InputError(f"{folder} holds {len(images)} images but {len(rows)} rows of `{part}`; delete it")
        return cls(
            images=images,
            labels=np.array([int(row["label"]) for row in rows], dtype=np.int64),
            files=tuple(row["file"] for row in rows),
            groups=tuple(row["group"] for row in rows),
            classes=tuple(json.loads(paths.description.read_text(encoding="utf-8"))["classes"]),
        )


def build_arrays(
    folder: Path,
    settings: DataSettings,
    rows: Sequence[SplitRow],
    part: Part,
    progress: Callable[[int, int], None] | None = None,
) -> ImageSet:
    """Decodes the images of one part into `folder`, or opens them if that was done; touches no image of another part.

    Args:
        folder: Gets `<part>.npy`, `<part>.csv` and, last, `<part>.json`, whose fingerprint says what they were made of.
        settings: `path`, `image_size`, `colour` and `max_pixels` are used.
        rows: The whole split, so that the classes are the same in all parts; the order of the images is theirs.
        part: The part to decode.
        progress: Called from this thread after each image with (images done, images in all).

    Raises:
        InputError: The part is empty, or files are missing, no longer decode or changed since the split was made.
    """
    paths, classes = _PartPaths(folder, part), sorted({row.class_name for row in rows})
    wanted: dict[str, object] = {"fingerprint": data_fingerprint(rows, settings), "classes": classes}
    if not paths.hold(wanted):
        inside = [row for row in rows if row.part == part]
        if not inside:
            raise InputError(f"part `{part}` must hold images, but the split gives it none")
        paths.description.unlink(missing_ok=True)  # so that no crash leaves it beside arrays of another split
        with whole_file(paths.arrays) as temporary:
            _decode_all(temporary, settings, inside, progress)
        table = ((row.file, row.sha256, row.class_name, classes.index(row.class_name), row.group) for row in inside)
        write_csv(paths.table, COLUMNS, table)
        with whole_file(paths.description) as temporary:
            temporary.write_text(json.dumps(wanted, ensure_ascii=False), encoding="utf-8")
    return ImageSet.open(folder, part)


def concatenate(first: ImageSet, second: ImageSet) -> ImageSet:
    """Puts two parts of one study after each other, in memory (train + validation, for the final model)."""
    if first.classes != second.classes:
        raise ValueError(f"both parts must have the same classes, but got {first.classes} and {second.classes}")
    return ImageSet(
        images=np.concatenate([first.images, second.images]),
        labels=np.concatenate([first.labels, second.labels]),
        files=first.files + second.files,
        groups=first.groups + second.groups,
        classes=first.classes,
    )


@dataclass(frozen=True)
class _PartPaths:
    folder: Path
    part: Part

    @property
    def arrays(self) -> Path:
        return self.folder / f"{self.part}.npy"

    @property
    def table(self) -> Path:
        return self.folder / f"{self.part}.csv"

    @property
    def description(self) -> Path:
        return self.folder / f"{self.part}.json"

    def hold(self, wanted: dict[str, object]) -> bool:
        """Whether the part was built whole, of what `wanted` describes."""
        try:
            described = json.loads(self.description.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return False
        return described == wanted and self.arrays.is_file() and self.table.is_file()


def _decode_all(
    path: Path, settings: DataSettings, rows: Sequence[SplitRow], progress: Callable[[int, int], None] | None
) -> None:
    shape = (len(rows), settings.image_size, settings.image_size, CHANNELS[settings.colour])
    arrays = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape)
    _claim_space(path)
    problems: list[str] = []
    with ThreadPoolExecutor(THREADS) as pool:
        tasks = pool.map(lambda index: _decode_row(arrays[index], settings, rows[index]), range(len(rows)))
        for done, problem in enumerate(tasks, start=1):
            problems += [problem] if problem else []
            if progress:
                progress(done, len(rows))
    if problems:
        raise InputError(problems)
    arrays.flush()


def _claim_space(path: Path) -> None:
    """Fails at once on a full disk; writing through a map into a file of holes would kill the process instead."""
    if hasattr(os, "posix_fallocate"):
        with path.open("r+b") as stream:
            os.posix_fallocate(stream.fileno(), 0, path.stat().st_size)


def _decode_row(target: np.ndarray, settings: DataSettings, row: SplitRow) -> str | None:
    """Fills `target` with one image, or says why it can't."""
    try:
        data = read_image_file(settings.path / row.file, settings.max_pixels)
        if hashlib.sha256(data).hexdigest() != row.sha256:
            return f"{row.file} changed since the split was made; restore it, or start a new study"
        target[:] = decode_bytes(data, settings.image_size, settings.colour, settings.max_pixels)
    except InputError as error:
        return f"{row.file}: {error}"
    return None

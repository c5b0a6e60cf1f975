"""Images as arrays: each part of the split decoded once, kept in one file, and opened without reading it."""

import hashlib
import json
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from trainable.decoding import CHANNELS, Colour, decode, decode_bytes, read_image_file
from trainable.errors import InputError
from trainable.inspection import THREADS
from trainable.settings import DataSettings, Part
from trainable.split import SplitRow, data_fingerprint
from trainable.whole_file import claim_space, read_csv, remove_unfinished, sha256, whole_file, write_csv, write_text

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
        """Opens what `build_arrays` left in `folder`, after comparing every byte with what was written then.

        Raises:
            InputError: The part was not built there, or its files are damaged or don't belong together.
        """
        paths = _PartPaths(folder, part)
        missing = [path.name for path in (paths.arrays, paths.table, paths.description) if not path.is_file()]
        if missing:
            raise InputError(f"{folder} must hold the decoded part `{part}`, but {', '.join(missing)} is missing")
        described = paths.described()
        damaged = [path.name for path, digest in paths.digests().items() if described.get(path.name) != digest]
        if damaged:
            raise InputError(
                f"{folder} must hold the part `{part}` as it was decoded, but {', '.join(damaged)} changed since; "
                "start the same search again, which decodes it anew"
            )
        rows = read_csv(paths.table)
        return cls(
            images=np.load(paths.arrays, mmap_mode="r", allow_pickle=False),
            labels=np.array([int(row["label"]) for row in rows], dtype=np.int64),
            files=tuple(row["file"] for row in rows),
            groups=tuple(row["group"] for row in rows),
            classes=tuple(described["classes"]),
        )


def build_arrays(
    folder: Path,
    settings: DataSettings,
    rows: Sequence[SplitRow],
    part: Part,
    progress: Callable[[int, int], None] | None = None,
) -> ImageSet:
    """Decodes the images of one part into `folder`, or opens them if that was done; touches no image of another part.

    Images are read once: whatever becomes of their files afterwards, a study goes on with the pixels it began with.
    Arrays that were damaged meanwhile are made again, of images whose sha256 must be the split's.

    Args:
        folder: Gets `<part>.npy`, `<part>.csv` and, last, `<part>.json`, which says what they were made of and their
            sha256; one process at a time writes there.
        settings: `path`, `image_size`, `colour` and `max_pixels` are used.
        rows: The whole split, so that the classes are the same in all parts; the order of the images is theirs.
        part: The part to decode.
        progress: Called from this thread after each image with (images done, images in all).

    Raises:
        InputError: The part is empty, or files are missing, no longer decode or changed since the split was made.
    """
    paths, classes = _PartPaths(folder, part), sorted({row.class_name for row in rows})
    made_of: dict[str, object] = {"fingerprint": data_fingerprint(rows, settings), "classes": classes}
    if made_of.items() <= paths.described().items():
        with suppress(InputError):
            return ImageSet.open(folder, part)
    inside = [row for row in rows if row.part == part]
    if not inside:
        raise InputError(f"part `{part}` must hold images, but the split gives it none")
    remove_unfinished(folder)
    paths.description.unlink(missing_ok=True)  # so that no crash leaves it beside arrays of another split
    with whole_file(paths.arrays) as temporary:
        _decode_all(temporary, settings, inside, progress)
    table = ((row.file, row.sha256, row.class_name, classes.index(row.class_name), row.group) for row in inside)
    write_csv(paths.table, COLUMNS, table)
    digests = {path.name: digest for path, digest in paths.digests().items()}
    write_text(paths.description, json.dumps(made_of | digests, ensure_ascii=False))
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

    def described(self) -> dict[str, Any]:
        """What the description says; empty when there is none that can be read."""
        try:
            described = json.loads(self.description.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return described if isinstance(described, dict) else {}

    def digests(self) -> dict[Path, str]:
        """sha256 of arrays and table, as they are."""
        return {path: sha256(path) for path in (self.arrays, self.table)}


def _decode_all(
    path: Path, settings: DataSettings, rows: Sequence[SplitRow], progress: Callable[[int, int], None] | None
) -> None:
    shape = (len(rows), settings.image_size, settings.image_size, CHANNELS[settings.colour])
    arrays = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape)
    claim_space(path)
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

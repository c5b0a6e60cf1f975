"""What lies in the image folder: every file read once, looked at, and either described or listed with a reason."""

import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

import numpy as np
from PIL import Image

from trainable.decoding import open_image, read_image_file, upright_pixels
from trainable.errors import InputError
from trainable.near_duplicates import near_duplicate_clusters, perceptual_hash
from trainable.settings import DataSettings

THREADS = min(8, os.cpu_count() or 1)  # decoding releases the interpreter lock; more would only hold more pixels

_SAME_CONTENT = {"MPO": "JPEG", "DIB": "BMP"}  # what cameras and Windows write under .jpg and .bmp


@dataclass(frozen=True)
class ImageFile:
    """One file that decodes.

    Attributes:
        file: Path below the data folder with `/` between the parts, for example `COVID/a.png`.
        class_name: The first part of `file`.
        sha256: Of the file's bytes, hexadecimal.
        width: In pixels, as the header declares it (before an EXIF rotation).
        height: As `width`.
        mode: Pillow's name of the pixel format: `L`, `RGB`, `RGBA`, `I;16` …
        format: What the content is, whatever the name says: `PNG`, `JPEG` …
        perceptual_hash: See `near_duplicates.perceptual_hash`.
    """

    file: str
    class_name: str
    sha256: str
    width: int
    height: int
    mode: str
    format: str
    perceptual_hash: int


@dataclass(frozen=True)
class UnreadableFile:
    """One file that gives no image, or a folder that is not read, and why. Bytes of a name that are not UTF-8 are shown
    as hexadecimal escapes.
    """

    file: str
    reason: str
    is_folder: bool = False


@dataclass(frozen=True)
class Inspection:
    """What `inspect_images` found.

    Attributes:
        classes: Names of the class folders, sorted, empty ones included.
        images: The files that decode, sorted by `file`.
        unreadable: The files that don't, sorted by `file`.
        exact_duplicates: Sets of two or more files with the same bytes, sorted.
        near_duplicates: Clusters of two or more files that look alike; exact duplicates are in them too.
        warnings: Sentences on what deserves a look but stops nothing.
    """

    classes: tuple[str, ...]
    images: tuple[ImageFile, ...]
    unreadable: tuple[UnreadableFile, ...]
    exact_duplicates: tuple[tuple[str, ...], ...]
    near_duplicates: tuple[tuple[str, ...], ...]
    warnings: tuple[str, ...]

    def problems(self, settings: DataSettings) -> list[str]:
        """Why no study may start on these images; empty when one may. Groups and parts are judged by `make_split`."""
        return [
            *self._class_problems(settings),
            *self._folder_problems(),
            *self._unreadable_problems(settings),
            *self._size_problems(settings),
        ]

    def _class_problems(self, settings: DataSettings) -> Iterator[str]:
        if not self.classes:
            yield f"{settings.path} must hold one folder of images per class, but holds no folder"
            return
        if len(self.classes) == 1:
            yield f"{settings.path} must hold at least two class folders, but holds only `{self.classes[0]}`"
        wanted = settings.positive_class
        if wanted is not None and wanted not in self.classes:
            by_letters = {name.casefold(): name for name in self.classes}
            nearest = by_letters[get_close_matches(wanted.casefold(), by_letters, n=1, cutoff=0)[0]]
            yield (
                f"`positive_class` must be one of the classes {some(self.classes, 20)}, but got `{wanted}`; "
                f"the nearest is `{nearest}`"
            )

    def _folder_problems(self) -> Iterator[str]:
        folders = [f"{each.file} ({each.reason})" for each in self.unreadable if each.is_folder]
        if folders:  # of how many images, nobody knows
            yield (
                f"every folder must be one that is read, but {len(folders)} are not: {some(folders)}; make each a "
                "folder with the images in it, or take it away"
            )

    def _unreadable_problems(self, settings: DataSettings) -> Iterator[str]:
        files = [each for each in self.unreadable if not each.is_folder]
        count, total = len(files), len(files) + len(self.images)
        if count > settings.max_unreadable_share * total:
            yield (
                f"at most {settings.max_unreadable_share:.1%} of the files may be unreadable (`max_unreadable_share`), "
                f"but {count} of {total} are: {some([f'{each.file} ({each.reason})' for each in files])}; "
                f"repair or remove them, or raise the limit"
            )

    def _size_problems(self, settings: DataSettings) -> Iterator[str]:
        counts = Counter(image.class_name for image in self.images)
        parts = 3 if settings.split.test > 0 else 2
        for name in self.classes:
            if counts[name] == 0:
                yield f"class folder `{name}` must hold readable images, but holds none"
            elif counts[name] < parts and settings.split_file is None:
                yield f"every class needs an image in each of the {parts} parts, but `{name}` has only {counts[name]}"


def inspect_images(settings: DataSettings, progress: Callable[[int, int], None] | None = None) -> Inspection:
    """Reads every file in the class folders of `settings.path` once and decodes it whole.

    Hidden files are ignored. Links are followed only to files inside the folder.

    Args:
        settings: `path`, `max_pixels` and `near_duplicate_distance` are used.
        progress: Called from this thread after each file with (files done, files in all).

    Raises:
        InputError: `settings.path` is no readable folder. Everything else is told by `Inspection.problems`.
    """
    root = settings.path
    folders = _folders(root)
    left_alone = {name: reason for name in folders if (reason := _why_left_alone(root / name, root.resolve()))}
    classes = [name for name in folders if name not in left_alone]
    found = [entry for name in classes for entry in _files_below(root, name)]
    unreadable = [UnreadableFile(in_utf8(name), reason, is_folder=True) for name, reason in left_alone.items()]
    unreadable += [entry for entry in found if isinstance(entry, UnreadableFile)]
    files = [entry for entry in found if isinstance(entry, str)]
    looked_at = list(_look_at_all(root, files, settings.max_pixels, progress))
    unreadable += [entry for entry in looked_at if isinstance(entry, UnreadableFile)]
    images = sorted((entry for entry in looked_at if isinstance(entry, ImageFile)), key=lambda image: image.file)
    clusters = near_duplicate_clusters([image.perceptual_hash for image in images], settings.near_duplicate_distance)
    duplicates = _exact_duplicates(images)
    return Inspection(
        classes=tuple(classes),
        images=tuple(images),
        unreadable=tuple(sorted(unreadable, key=lambda entry: entry.file)),
        exact_duplicates=duplicates,
        near_duplicates=tuple(tuple(images[position].file for position in cluster) for cluster in clusters),
        warnings=tuple(_warnings(root, images, duplicates)),
    )


def some(names: Sequence[str], limit: int = 3) -> str:
    """Up to `limit` names, quoted, and how many there are beyond them: "`a`, `b` and 12 more"."""
    shown = ", ".join(f"`{name}`" for name in names[:limit])
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit} more"


def _folders(root: Path) -> list[str]:
    try:
        return sorted(each.name for each in root.iterdir() if _is_folder(each) and not each.name.startswith("."))
    except OSError as error:
        raise InputError(
            f"`data.path` must be a readable folder with one sub-folder per class, but {root}: {error.strerror}"
        ) from error


def _files_below(root: Path, class_name: str) -> Iterator[str | UnreadableFile]:
    """Files to read, relative to `root`, and what must not be opened or walked into."""
    resolved, errors = root.resolve(), list[OSError]()
    for folder, folders, files in os.walk(root / class_name, onerror=errors.append):
        left_alone = {
            name: reason for name in [*folders, *files] if (reason := _why_left_alone(Path(folder, name), resolved))
        }
        for name in sorted({*files, *left_alone}):
            if name.startswith("."):
                continue
            path = Path(folder, name)
            file, reason = path.relative_to(root).as_posix(), left_alone.get(name)
            yield UnreadableFile(in_utf8(file), reason, _is_folder(path)) if reason else file
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name not in left_alone)
    for error in errors:
        file = Path(error.filename).relative_to(root).as_posix()
        yield UnreadableFile(file, f"the folder: {error.strerror}", is_folder=True)


def _why_left_alone(path: Path, root: Path) -> str | None:
    if not _is_utf8(path.name):
        return "the name is not UTF-8; rename it"
    if not path.is_symlink():
        return None
    try:
        target = path.resolve(strict=True)
    except (OSError, RuntimeError):  # Python up to 3.12 raises RuntimeError for a loop
        return "a link that leads nowhere or in a circle"
    if not target.is_relative_to(root):
        return "a link that leaves the data folder"
    return "a link to a folder; only links to files are followed" if target.is_dir() else None


def _is_folder(path: Path) -> bool:
    """Also a link that leads nowhere, unless it is called like a file: its disk may not be there."""
    return path.is_dir() or (path.is_symlink() and not path.exists() and not path.suffix)


def _is_utf8(name: str) -> bool:
    return in_utf8(name) == name


def in_utf8(name: str) -> str:
    """A file name with bytes that are no UTF-8 as hexadecimal escapes, so that it can be written down."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def _look_at_all(
    root: Path, files: list[str], max_pixels: int, progress: Callable[[int, int], None] | None
) -> Iterator[ImageFile | UnreadableFile]:
    with ThreadPoolExecutor(THREADS) as pool:
        for done, entry in enumerate(pool.map(lambda file: _look_at(root, file, max_pixels), files), start=1):
            yield entry
            if progress:
                progress(done, len(files))


def _look_at(root: Path, file: str, max_pixels: int) -> ImageFile | UnreadableFile:
    try:
        data = read_image_file(root / file, max_pixels)
        image = open_image(data, max_pixels)
        mode, (width, height) = image.mode, image.size  # decoding may change both
        grey = np.asarray(upright_pixels(image, "grey"))
    except InputError as error:
        return UnreadableFile(file, str(error))
    return ImageFile(
        file=file,
        class_name=_class_of(file),
        sha256=hashlib.sha256(data).hexdigest(),
        width=width,
        height=height,
        mode=mode,
        format=str(image.format),
        perceptual_hash=perceptual_hash(grey),
    )


def _class_of(file: str) -> str:
    return file.partition("/")[0]


def _exact_duplicates(images: Sequence[ImageFile]) -> tuple[tuple[str, ...], ...]:
    by_content: dict[str, list[str]] = defaultdict(list)
    for image in images:
        by_content[image.sha256].append(image.file)
    return tuple(tuple(files) for files in by_content.values() if len(files) > 1)


def _warnings(root: Path, images: Sequence[ImageFile], duplicates: tuple[tuple[str, ...], ...]) -> Iterator[str]:
    misnamed = [image.file for image in images if not _name_fits(image)]
    if misnamed:
        yield f"{len(misnamed)} files are read by content because their ending says otherwise: {some(misnamed)}"
    contradicting = [files for files in duplicates if len({_class_of(file) for file in files}) > 1]
    if contradicting:
        yield (
            f"{len(contradicting)} images lie in several classes with the same bytes, so at least one label is wrong: "
            f"{some([' = '.join(files) for files in contradicting])}; they stay together in one part"
        )
    deep = [image.file for image in images if image.mode.startswith("I")]
    if deep:
        yield (
            f"{len(deep)} images hold 16 bit per pixel: {some(deep)}; 0..65535 becomes 0..255, so values that use "
            f"less of that range (12 bit, say) come out dark: window them to 8 bit first"
        )
    endings = Image.registered_extensions()
    beside = sorted(in_utf8(path.name) for path in root.iterdir() if path.suffix.lower() in endings and path.is_file())
    if beside:
        yield f"{len(beside)} images lie beside the class folders and are not used: {some(beside)}"


def _name_fits(image: ImageFile) -> bool:
    named = Image.registered_extensions().get(Path(image.file).suffix.lower(), "")
    return _SAME_CONTENT.get(named, named) == _SAME_CONTENT.get(image.format, image.format)

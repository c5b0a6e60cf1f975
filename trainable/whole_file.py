"""Files and folders that appear under their final name whole or not at all. Every write of this package goes through
here, log lines excepted.
"""

import csv
import fcntl
import hashlib
import os
import re
import shutil
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from trainable.errors import InputError

FORMULA_SIGNS = "=+-@\t\r\n"  # a spreadsheet takes a cell that begins so for a formula, after trimming it (OWASP)

_UNFINISHED = re.compile(r"\..*\.[0-9a-f]{32}\.tmp(\..*)?", re.DOTALL)


@contextmanager
def whole_file(path: Path, durable: bool = True) -> Iterator[Path]:
    """Yields a temporary path beside `path`, of the same ending; what was written there takes the final name when the
    block ends.

    An exception in the block leaves `path` as it was and removes the temporary file.

    Args:
        path: The final name; missing folders are made.
        durable: Whether it must survive a power cut. What can be made again and is checked when it is read need not.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _beside(path)
    try:
        yield temporary
        if durable:
            flush_to_disk(temporary)
        os.replace(temporary, path)
        if durable:
            flush_to_disk(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def whole_folder(path: Path, durable: bool = True) -> Iterator[Path]:
    """Like `whole_file`, for a folder of files. An earlier folder of that name goes just before the new one takes it,
    because a folder cannot be replaced in one step.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _beside(path)
    try:
        temporary.mkdir()
        yield temporary
        for each in (*sorted(temporary.iterdir()), temporary) if durable else ():
            flush_to_disk(each)
        shutil.rmtree(path, ignore_errors=True)
        os.rename(temporary, path)  # noqa: PTH104 - as os.replace above
        if durable:
            flush_to_disk(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def remove_unfinished(folder: Path, stem: str = "") -> None:
    """Remove what processes that were killed while writing into `folder` left there; only for who alone writes these.

    Args:
        folder: Need not be there.
        stem: Of the final names meant; default: all.
    """
    for path in folder.glob(".*.tmp*"):
        if path.name.startswith(f".{stem}") and _UNFINISHED.fullmatch(path.name):
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)


def write_text(path: Path, text: str, durable: bool = True) -> None:
    """Writes UTF-8 text, whole or not at all."""
    with whole_file(path, durable) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Writes UTF-8 CSV, whole or not at all, that a spreadsheet finds no formula in; `read_csv` gives every text back
    as it was.
    """
    with whole_file(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as stream:
        # The default line end \r\n makes the writer quote a lone \r as well, so it survives the way back.
        writer = csv.writer(stream)
        writer.writerow(columns)
        writer.writerows([guarded(cell) for cell in row] for row in rows)


def read_csv(path: Path) -> list[dict[str, str]]:
    """Reads UTF-8 CSV (with or without a byte order mark) as text, so that a group `007` stays `007`.

    An apostrophe before a formula sign, or before another apostrophe, means what it means to a spreadsheet: text
    follows.

    Raises:
        InputError: The file is missing, unreadable, no regular file, not UTF-8, empty, or has a row of another length
            than its header.
    """
    try:
        if path.exists() and not path.is_file():  # a named pipe would be waited for
            raise InputError(f"{path} must be a CSV file, but is a folder, named pipe, socket or device")
        with path.open(encoding="utf-8-sig", newline="") as stream:
            lines = list(csv.reader(stream, strict=True))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} must be a readable UTF-8 CSV file, but: {error}") from error
    if not lines:
        raise InputError(f"{path} must begin with a line of column names, but is empty")
    header, *rows = lines
    ragged = [number for number, row in enumerate(rows, start=2) if row and len(row) != len(header)]
    if ragged:
        raise InputError(f"{path}: every row must have {len(header)} columns, but row {ragged[0]} has another number")
    return [dict(zip(header, map(_unguarded, row), strict=True)) for row in rows if row]


def guarded(cell: object) -> object:
    """A CSV cell that no spreadsheet takes for a formula: such text gets a leading apostrophe."""
    return f"'{cell}" if isinstance(cell, str) and cell[:1] in (*FORMULA_SIGNS, "'") else cell


def _unguarded(cell: str) -> str:
    return cell[1:] if cell[:1] == "'" and cell[1:2] in (*FORMULA_SIGNS, "'") else cell


def flush_to_disk(path: Path) -> None:
    """Make a file, or a rename in a folder, survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256(path: Path) -> str:
    """Of a file's bytes, hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Wait for and hold a lock file; the kernel lets go of a dead holder's."""
    with path.open("a") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def is_locked(path: Path) -> bool:
    """Whether somebody holds this lock file, this process included; it may change the next moment."""
    with path.open("a") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def claim_space(path: Path) -> None:
    """Fails at once on a full disk; writing through a map into a file of holes would kill the process instead."""
    with path.open("r+b") as stream:
        os.posix_fallocate(stream.fileno(), 0, path.stat().st_size)


def _beside(path: Path) -> Path:
    """A hidden name of the same ending that no other process has; Keras insists on the ending."""
    return path.with_name(f".{path.stem[:32]}.{uuid.uuid4().hex}.tmp{path.suffix[:16]}")

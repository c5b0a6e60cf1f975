"""Files that appear under their final name whole or not at all."""

import csv
import os
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from trainable.errors import InputError


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yields a temporary path beside `path`; what was written there takes the final name when the block ends.

    An exception in the block leaves `path` as it was and removes the temporary file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name[:32]}.{uuid.uuid4().hex}.tmp")
    try:
        yield temporary
        flush_to_disk(temporary)
        os.replace(temporary, path)
        flush_to_disk(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Writes UTF-8 CSV, whole or not at all; line breaks, quotes and leading `=` in values come back as they were."""
    with whole_file(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as stream:
        # The default line end \r\n makes the writer quote a lone \r as well, so it survives the way back.
        writer = csv.writer(stream)
        writer.writerow(columns)
        writer.writerows(rows)


def read_csv(path: Path) -> list[dict[str, str]]:
    """Reads UTF-8 CSV (with or without a byte order mark) as text, so that a group `007` stays `007`.

    Raises:
        InputError: The file is missing, unreadable, not UTF-8, empty, or has a row of another length than its header.
    """
    try:
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
    return [dict(zip(header, row, strict=True)) for row in rows if row]


def flush_to_disk(path: Path) -> None:
    """Make a file, or a rename in a folder, survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

"""Files that are there whole or not at all: all that `search` and `analysis` write into a run, but SQLite's own."""

import hashlib
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO


def write_whole(path: Path, content: str | bytes) -> None:
    """Write beside the final name, flush to disk, rename; an earlier file stays until the new one is whole.

    Raises:
        OSError: when it can't be written; `path` is then as it was.
    """
    with _replacing(path) as temporary:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        try:
            write_fully(descriptor, content.encode() if isinstance(content, str) else content)
        finally:
            os.close(descriptor)
        os.replace(temporary, path)
        flush_folder(path.parent)


@contextmanager
def whole_file(path: Path, durable: bool = True) -> Iterator[IO[bytes]]:
    """A file to write beside the final name; it takes that name when the block ends well. Missing folders are made.

    Args:
        path: The final name.
        durable: Whether it must survive a power cut.

    Raises:
        OSError: when it can't be written; `path` is then as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with _replacing(path) as temporary:
        with temporary.open("xb") as stream:
            yield stream
            if durable:
                stream.flush()
                os.fsync(stream.fileno())
        os.replace(temporary, path)
        if durable:
            flush_folder(path.parent)


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """A name beside `path` that no other process has; whatever is left under it in the end goes."""
    temporary = path.with_name(f".{path.name[:32]}.{uuid.uuid4().hex}.tmp")
    try:
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def write_fully(descriptor: int, content: bytes, offset: int = 0) -> None:
    """Write all of it at an offset and flush it to disk.

    Raises:
        OSError: when not all of it could be written; a part may have been.
    """
    rest = memoryview(content)
    while rest:
        written = os.pwrite(descriptor, rest, offset)
        rest, offset = rest[written:], offset + written
    os.fsync(descriptor)


def flush_folder(folder: Path) -> None:
    """Make a rename in this folder survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256(path: Path) -> str:
    """Of a file's bytes, hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()

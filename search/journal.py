"""The ledger's second record: the same events, a line each, appended and flushed before they count.

Two files that are written in different ways are seldom damaged together: what one has lost comes back from the other.
"""

import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from search.entries import Entry, from_line, to_line
from search.whole_file import flush_folder, write_fully, write_whole

_TAIL = 1 << 16  # bytes; an event has a few hundred, and a longer one only costs a full read


class Journal:
    """The open journal of the one writer."""

    def __init__(self, path: Path):
        """Open or create; the file must be whole (`Pages.clean`)."""
        created = not path.exists()
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        self._length = os.lseek(self._descriptor, 0, os.SEEK_END)
        self._uncut = False
        if created:
            flush_folder(path.parent)

    def append(self, entries: Iterable[Entry]) -> None:
        """Make the entries durable, all or none.

        Raises:
            OSError: when they could not be; whatever of them was written is taken back, now or before the next ones.
        """
        if self._uncut:
            self._truncate()
        lines = b"".join(map(to_line, entries))
        try:
            write_fully(self._descriptor, lines, self._length)
        except OSError:
            self.cut(self._length)
            raise
        self._length += len(lines)

    @property
    def length(self) -> int:
        """Bytes of all entries so far."""
        return self._length

    def cut(self, length: int) -> None:
        """Take back what was appended beyond `length` bytes."""
        self._length, self._uncut = length, True
        with suppress(OSError):
            self._truncate()

    def _truncate(self) -> None:
        os.ftruncate(self._descriptor, self._length)
        self._uncut = False

    def close(self) -> None:
        os.close(self._descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@dataclass(frozen=True)
class Pages:
    """What was found in a journal.

    Attributes:
        entries: Those of whole lines.
        clean: Whether that is everything: no line is damaged, and the last one is ended.
        torn: Whether all that is not clean is the last line, as a writer leaves it that was killed in mid-write.
    """

    entries: Sequence[Entry] = ()
    clean: bool = True
    torn: bool = False


def read_journal(path: Path) -> Pages:
    """Everything whole in a journal; nothing when there is none."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return Pages()
    return parse(content)


def parse(content: bytes) -> Pages:
    """Everything whole in a journal's bytes."""
    *lines, tail = content.split(b"\n")
    entries = [from_line(line) for line in lines]
    last = from_line(tail) if tail else None
    whole = [entry for entry in (*entries, last) if entry is not None]
    clean = None not in entries and not tail
    return Pages(whole, clean, torn=None not in entries and not clean)


def last_sequence(path: Path) -> int | None:
    """Number of the newest entry, 0 in an empty or missing journal; None when its last line is not whole."""
    try:
        with path.open("rb") as stream:
            size = stream.seek(0, os.SEEK_END)
            stream.seek(max(0, size - _TAIL))
            content = stream.read()
    except FileNotFoundError:
        return 0
    if not size:
        return 0
    lines = content.split(b"\n")
    entry = from_line(lines[-2]) if len(lines) > 1 and not lines[-1] else None
    return entry.sequence if entry else None


def write_journal(path: Path, entries: Iterable[Entry]) -> None:
    """A journal of these entries, whole or not at all."""
    write_whole(path, b"".join(map(to_line, entries)))

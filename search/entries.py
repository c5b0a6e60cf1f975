"""An event as it is recorded: numbered, timed, and able to show that it is whole."""

import json
import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from search.errors import LedgerError
from search.events import Event, from_json


class Entry(NamedTuple):
    """One event in a record of a study.

    Attributes:
        sequence: 1, 2, 3 … without a gap: the only order.
        at: Seconds since 1970, for people.
        elapsed: Seconds since its session began, from a clock that never steps back.
        kind: Name of the event's type.
        body: Its values as JSON.
    """

    sequence: int
    at: float
    elapsed: float
    kind: str
    body: str

    @property
    def checksum(self) -> int:
        """A crc32 of everything else."""
        return zlib.crc32(f"{self.sequence} {self.at!r} {self.elapsed!r} {self.kind} {self.body}".encode())

    def event(self) -> Event:
        """What happened.

        Raises:
            LedgerError: when this Thawline does not know such an event.
        """
        try:
            return from_json(self.kind, self.body)
        except (KeyError, TypeError, ValueError) as error:
            raise LedgerError(
                f"event {self.sequence} must be one that this Thawline knows, but {self.kind!r} is not ({error}); "
                "use the Thawline that wrote it"
            ) from error


def to_line(entry: Entry) -> bytes:
    """The entry and its checksum as one line of JSON."""
    return json.dumps([*entry, entry.checksum], ensure_ascii=False).encode() + b"\n"


def from_line(line: bytes) -> Entry | None:
    """The entry that `to_line` wrote; None when the line is not whole."""
    try:
        sequence, at, elapsed, kind, body, checksum = json.loads(line)
        entry = Entry(int(sequence), float(at), float(elapsed), str(kind), str(body))
    except (ValueError, TypeError, OverflowError):
        return None
    return entry if entry.checksum == checksum else None


def united(records: Mapping[str, Iterable[Entry]]) -> list[Entry]:
    """What any of the records has, in the order of sequence numbers; gaps stay.

    Args:
        records: By the name that a message calls them.

    Raises:
        LedgerError: when two of them have different events under one number.
    """
    found: dict[int, tuple[str, Entry]] = {}
    for name, entries in records.items():
        for entry in entries:
            first, known = found.setdefault(entry.sequence, (name, entry))
            if known != entry:
                raise LedgerError(
                    f"event {entry.sequence} must be the same in every record of a study, but {first} and {name} "
                    "differ: they are of two studies, or one study went on in two places; keep one and move the other "
                    "away"
                )
    return [found[number][1] for number in sorted(found)]


def unbroken(entries: Sequence[Entry]) -> list[Entry]:
    """The entries before the first gap."""
    return [entry for position, entry in enumerate(entries, start=1) if entry.sequence == position]

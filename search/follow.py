"""Reading along in a ledger that somebody else writes: each event once, as it comes, and nothing else again."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from search.entries import Entry
from search.errors import LedgerError
from search.events import Event
from search.history import History


class Happening(NamedTuple):
    """An event and when it happened: `at` in seconds since 1970, `elapsed` in seconds since its session began."""

    sequence: int
    at: float
    elapsed: float
    event: Event


class Follower:
    """Gives the events of a ledger from its first one on, those that came since it was last asked.

    A look costs one query by sequence number, however long the study is. Checksums are not looked at: `read_history`
    does, and what is followed has just been written.

    Attributes:
        history: What follows from all events given so far.
        last: The newest of them; None before the first.
    """

    def __init__(self, path: Path):
        self._path = path
        self.history = History()
        self.last: Happening | None = None

    def catch_up(self) -> None:
        """Take in what is new without looking at it."""
        for _ in self.new():
            pass

    def new(self) -> Iterator[Happening]:
        """What happened since the last time; `history` moves along with it, event by event.

        Raises:
            LedgerError: when the ledger cannot be read, or was written by a later Thawline.
        """
        try:
            with closing(sqlite3.connect(f"{self._path.resolve().as_uri()}?mode=ro", uri=True, timeout=10)) as database:
                rows = database.execute(
                    "SELECT sequence, at, elapsed, kind, body FROM events WHERE sequence > ? ORDER BY sequence",
                    (self.last.sequence if self.last else 0,),
                ).fetchall()
        except (sqlite3.Error, UnicodeDecodeError) as error:
            raise LedgerError(f"{self._path}: must be a readable ledger, but {error}") from error
        for entry in map(Entry._make, rows):
            self.last = Happening(entry.sequence, entry.at, entry.elapsed, entry.event())
            self.history.apply(entry.elapsed, self.last.event)
            yield self.last

"""What happened, durably, in two records: a table in SQLite and a journal of lines; and the trials that follow from it.

An event is in both (journal flushed, then a commit with WAL and `synchronous=FULL`) before anyone acts on it. Nothing
is ever updated or deleted, so the state of a study is a fold over its events in the order of their sequence numbers;
clocks order nothing. docs/ledger.md is the contract.
"""

import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from search import database
from search.database import SCHEMA_VERSION
from search.entries import Entry
from search.errors import LedgerError
from search.events import Event, to_json
from search.history import History
from search.journal import Journal
from search.recovery import gather, journal_of, read_entries, recover

__all__ = ["SCHEMA_VERSION", "Ledger", "read_history"]


class Ledger:
    """The single writer of a study's events. Readers use `read_history`, at any time, beside it.

    Attributes:
        history: What follows from all events so far.
        sequence: Number of the newest event; 0 before the first.
        recovered: What had to be mended when it was opened, in a line; None when nothing had.
        listeners: Called with each event, after it is durable.
    """

    def __init__(
        self, path: Path, elsewhere: Mapping[str, Sequence[Entry]] | None = None, *, accept_loss: bool = False
    ):
        """Open or create the ledger; mend what is damaged where that loses nothing.

        Args:
            path: Of the database; the journal is beside it.
            elsewhere: Entries of other records of the same study, by name.
            accept_loss: Go on with what can be saved, though acknowledged events are lost.

        Raises:
            LedgerError: when events may be lost, the records contradict each other, or are of an unknown version.
        """
        self.path = path
        self.listeners: list[Callable[[Event], None]] = []
        self._began = time.monotonic()
        try:
            records = gather(path, elsewhere)
            self.recovered = recover(records, accept_loss)
            entries = database.read(path) if self.recovered else records.entries
        except (sqlite3.Error, OSError) as error:
            raise LedgerError(f"{path}: must be where a ledger can be read and written, but {error}") from error
        self.history = History((entry.elapsed, entry.event()) for entry in entries)
        self.sequence = len(entries)
        self._journal = Journal(journal_of(path))
        try:
            self._database = database.open_for_writing(path)
        except BaseException:
            self._journal.close()
            raise

    def append(self, *events: Event) -> None:
        """Make the events durable, all or none, then count them in `history`.

        Raises:
            LedgerError: when they could not be made durable (disk full, read-only); the history is then unchanged.
        """
        elapsed = time.monotonic() - self._began
        entries = [
            Entry(number, float(time.time()), elapsed, event.kind, to_json(event))
            for number, event in enumerate(events, start=self.sequence + 1)
        ]
        length = self._journal.length
        try:
            database.insert(self._database, entries, before_commit=lambda: self._journal.append(entries))
        except (sqlite3.Error, OSError) as error:
            self._take_back(length)
            raise LedgerError(
                f"{self.path}: every event must be durable before it is acted on, but {error}; "
                "free space or mend the disk, then start the same search again: nothing acknowledged is lost"
            ) from error
        except BaseException:  # a signal: whether the commit came before it, the next start finds out
            self._take_back(length)
            raise
        self.sequence += len(entries)
        for event in events:
            self.history.apply(elapsed, event)
            for listener in self.listeners:
                listener(event)

    def _take_back(self, length: int) -> None:
        """The journal as it was, when this append reached it at all."""
        if self._journal.length > length:
            self._journal.cut(length)

    @property
    def elapsed(self) -> float:
        """Seconds of study time used so far, this session's until now included."""
        return self.history.used_before_session + time.monotonic() - self._began

    def close(self) -> None:
        """Fold the write-ahead log into the file and let go of both records."""
        self._database.close()
        self._journal.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def read_history(path: Path) -> History:
    """The study so far, without disturbing its writer.

    Raises:
        LedgerError: when there is no ledger, it is of another version, or events of it may be lost.
    """
    if not path.is_file() and not journal_of(path).is_file():
        raise LedgerError(f"{path}: must be a study's ledger, but there is no such file")
    return History((entry.elapsed, entry.event()) for entry in read_entries(path))

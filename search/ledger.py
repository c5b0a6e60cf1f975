"""What happened, durably: one append-only table of events in SQLite, and the trials that follow from it.

An event is committed (WAL, `synchronous=FULL`) before anyone acts on it. Nothing is ever updated or deleted, so the
state of a study is a fold over its events in the order of their sequence numbers; clocks order nothing.
"""

import sqlite3
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from types import TracebackType
from typing import Self

from search.errors import LedgerError
from search.events import Event, from_json, to_json
from search.history import History
from search.whole_file import flush_folder

SCHEMA_VERSION = 1
_SCHEMA = """
CREATE TABLE IF NOT EXISTS events (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    at REAL NOT NULL,          -- seconds since 1970, for people
    elapsed REAL NOT NULL,     -- seconds since this session began, from a clock that never steps back
    kind TEXT NOT NULL,
    body TEXT NOT NULL,        -- JSON
    checksum INTEGER NOT NULL  -- crc32 of "elapsed kind body"
) STRICT
"""


class Ledger:
    """The single writer of a study's events. Readers use `read_history`, at any time, beside it.

    Attributes:
        history: What follows from all events so far.
        listeners: Called with each event, after it is durable.
    """

    def __init__(self, path: Path):
        """Open or create the ledger.

        Raises:
            LedgerError: when the file is damaged or of another version.
        """
        self.path = path
        self.listeners: list[Callable[[Event], None]] = []
        self._began = time.monotonic()
        if not path.exists():
            _create(path)
        self._database = _connect(path, writable=True)
        try:
            self.history = History(_events(self._database, path))
        except BaseException:
            self._database.close()
            raise

    def append(self, *events: Event) -> None:
        """Make the events durable, all or none, then count them in `history`.

        Raises:
            LedgerError: when they could not be made durable (disk full, read-only); the history is then unchanged.
        """
        elapsed = time.monotonic() - self._began
        rows = [
            (time.time(), elapsed, event.kind, body := to_json(event), _checksum(elapsed, event.kind, body))
            for event in events
        ]
        try:
            with self._database:
                self._database.execute("BEGIN IMMEDIATE")
                self._database.executemany(
                    "INSERT INTO events (at, elapsed, kind, body, checksum) VALUES (?, ?, ?, ?, ?)", rows
                )
        except sqlite3.Error as error:
            raise LedgerError(
                f"{self.path}: every event must be durable before it is acted on, but {error}; "
                "free space or mend the disk, then start the same search again: nothing acknowledged is lost"
            ) from error
        for event in events:
            self.history.apply(elapsed, event)
            for listener in self.listeners:
                listener(event)

    @property
    def elapsed(self) -> float:
        """Seconds of study time used so far, this session's until now included."""
        return self.history.used_before_session + time.monotonic() - self._began

    def close(self) -> None:
        """Fold the write-ahead log into the file and let go of it."""
        self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def read_history(path: Path) -> History:
    """The study so far, without disturbing its writer.

    Raises:
        LedgerError: when there is no ledger, or it is damaged or of another version.
    """
    if not path.is_file():
        raise LedgerError(f"{path}: must be a study's ledger, but there is no such file")
    database = _connect(path, writable=False)
    try:
        return History(_events(database, path))
    finally:
        database.close()


def _create(path: Path) -> None:
    """An empty ledger under its final name, whole or not at all: a file of no bytes is a damaged one."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.unlink(missing_ok=True)
    try:
        with closing(sqlite3.connect(temporary, isolation_level=None)) as database:
            database.execute(_SCHEMA)
            database.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        temporary.replace(path)
        flush_folder(path.parent)
    except (sqlite3.Error, OSError) as error:
        raise LedgerError(f"{path}: must be a place where a ledger can be made, but {error}") from error


def _connect(path: Path, *, writable: bool) -> sqlite3.Connection:
    if path.exists() and not path.stat().st_size:  # SQLite would take it for a new one
        raise LedgerError(
            f"{path}: must be a ledger, but is empty; put back a copy, or delete it if no trial of it matters"
        )
    try:
        mode = "rw" if writable else "ro"
        database = sqlite3.connect(f"{path.resolve().as_uri()}?mode={mode}", uri=True, timeout=10, isolation_level=None)
        if writable:
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("PRAGMA synchronous = FULL")
        version = database.execute("PRAGMA user_version").fetchone()[0]
        verdict = database.execute("PRAGMA quick_check").fetchone()[0]
    except (sqlite3.Error, UnicodeDecodeError) as error:
        raise LedgerError(f"{path}: must be a readable SQLite file, but {error}") from error
    if version != SCHEMA_VERSION:
        raise LedgerError(
            f"{path}: ledger version {SCHEMA_VERSION} is needed, but got {version}; use the Thawline that wrote it"
        )
    if verdict != "ok":
        raise LedgerError(f"{path}: must be a whole SQLite file, but its check says: {verdict}")
    return database


def _events(database: sqlite3.Connection, path: Path) -> Iterator[tuple[float, Event]]:
    try:
        for sequence, elapsed, kind, body, checksum in database.execute(
            "SELECT sequence, elapsed, kind, body, checksum FROM events ORDER BY sequence"
        ):
            if _checksum(elapsed, kind, body) != checksum:
                raise LedgerError(
                    f"{path}: event {sequence} must match its checksum, but does not: the file is damaged"
                )
            yield elapsed, from_json(kind, body)
    except (sqlite3.Error, UnicodeDecodeError) as error:
        raise LedgerError(f"{path}: must be a readable ledger, but {error}") from error


def _checksum(elapsed: float, kind: str, body: str) -> int:
    return zlib.crc32(f"{elapsed!r} {kind} {body}".encode())

"""The ledger's SQLite file: one append-only table of entries, its versions, what can be saved from a damaged one."""

import shutil
import sqlite3
import tempfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from pathlib import Path

from search.entries import Entry
from search.errors import LedgerError
from search.whole_file import flush_folder

SCHEMA_VERSION = 2
_SCHEMA = """
CREATE TABLE IF NOT EXISTS events (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    at REAL NOT NULL,          -- seconds since 1970, for people
    elapsed REAL NOT NULL,     -- seconds since this session began, from a clock that never steps back
    kind TEXT NOT NULL,
    body TEXT NOT NULL,        -- JSON
    checksum INTEGER NOT NULL  -- crc32 of "sequence at elapsed kind body"
) STRICT
"""
COMPANIONS = ("", "-wal", "-shm")  # endings of the files that SQLite keeps


class Damage(LedgerError):
    """The file is there, but not whole; another record may make up for it."""


def create(path: Path, entries: Iterable[Entry] = ()) -> None:
    """A database of these entries under its final name, whole or not at all: a file of no bytes is a damaged one."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.unlink(missing_ok=True)
    try:
        with closing(sqlite3.connect(temporary, isolation_level=None)) as database:
            database.execute(_SCHEMA)
            database.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
            insert(database, entries)
        temporary.replace(path)
        flush_folder(path.parent)
    except (sqlite3.Error, OSError) as error:
        temporary.unlink(missing_ok=True)
        raise LedgerError(f"{path}: must be a place where a ledger can be made, but {error}") from error


def insert(database: sqlite3.Connection, entries: Iterable[Entry], before_commit: Callable[[], object] = bool) -> None:
    """Append entries in one transaction, all or none; `before_commit` may still prevent it by raising."""
    with database:
        database.execute("BEGIN IMMEDIATE")
        database.executemany(
            "INSERT INTO events (sequence, at, elapsed, kind, body, checksum) VALUES (?, ?, ?, ?, ?, ?)",
            ((*entry, entry.checksum) for entry in entries),
        )
        before_commit()


def read(path: Path) -> list[Entry]:
    """All entries, each checked, without disturbing a writer.

    Raises:
        Damage: when the file is not whole or not SQLite's.
        LedgerError: when it is of a version that is not known here.
    """
    try:
        with closing(_connect(path, "ro")) as database:
            version = _version(database, path)
            verdict = database.execute("PRAGMA quick_check").fetchone()[0]
            if verdict != "ok":
                raise Damage(f"{path}: must be a whole SQLite file, but its check says: {verdict}")
            entries = list(_entries(database, path, version))
            last = database.execute("SELECT max(seq) FROM sqlite_sequence WHERE name = 'events'").fetchone()[0] or 0
            if last > len(entries):
                raise Damage(f"{path}: must have {last} events, but has {len(entries)}")
            return entries
    except (sqlite3.Error, UnicodeDecodeError) as error:
        raise Damage(f"{path}: must be a readable SQLite file, but {error}") from error


def open_for_writing(path: Path) -> sqlite3.Connection:
    """A connection whose commits wait for the disk, to a file that `read` found whole; an older schema is brought up to
    date.

    Raises:
        LedgerError: when it can't be opened so.
    """
    try:
        database = _connect(path, "rw")
        try:
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("PRAGMA synchronous = FULL")
            _migrate(database, path)
        except BaseException:
            database.close()
            raise
    except sqlite3.Error as error:
        raise LedgerError(f"{path}: must be a SQLite file that can be written, but {error}") from error
    return database


def salvage(path: Path) -> list[Entry]:
    """What can be read from a damaged file, each entry checked; the file and its log are left as they are."""
    saved: list[Entry] = []
    with tempfile.TemporaryDirectory(prefix="thawline-salvage-") as folder:
        copy = Path(folder) / "copy.db"
        for ending in COMPANIONS[:2]:
            if (part := path.with_name(path.name + ending)).exists():
                shutil.copyfile(part, copy.with_name(copy.name + ending))
        try:
            with closing(_connect(copy, "rw")) as database:
                # A broken tree may still be read from its other end, so both ways.
                for order in ("ASC", "DESC"):
                    saved += _salvaged(database, order)
        except (sqlite3.Error, LedgerError):
            pass
    return sorted(set(saved))


def _salvaged(database: sqlite3.Connection, order: str) -> Iterator[Entry]:
    try:
        version = database.execute("PRAGMA user_version").fetchone()[0]
        checksum = _CHECKSUMS.get(version, _CHECKSUMS[SCHEMA_VERSION])
        for *values, found in database.execute(f"SELECT * FROM events ORDER BY sequence {order}"):  # noqa: S608
            entry = Entry(*values)
            if checksum(entry) == found:
                yield entry
    except (sqlite3.Error, UnicodeError, TypeError, ValueError):
        return


def _connect(path: Path, mode: str) -> sqlite3.Connection:
    if not path.is_file():
        raise Damage(f"{path}: must be a ledger, but is missing")
    if not path.stat().st_size:  # SQLite would take it for a new one
        raise Damage(f"{path}: must be a ledger, but is empty")
    with path.open("rb") as stream:
        header = stream.read(20)
    if header.startswith(b"SQLite format 3") and set(header[18:]) - {1, 2}:  # it would be opened, but for reading only
        raise Damage(f"{path}: must be a SQLite file that can be written, but its header says otherwise")
    return sqlite3.connect(f"{path.resolve().as_uri()}?mode={mode}", uri=True, timeout=10, isolation_level=None)


def _version(database: sqlite3.Connection, path: Path) -> int:
    version: int = database.execute("PRAGMA user_version").fetchone()[0]
    if version > SCHEMA_VERSION:
        raise LedgerError(
            f"{path}: ledger version {SCHEMA_VERSION} is needed, but got {version}; use the Thawline that wrote it"
        )
    if version not in _CHECKSUMS:
        raise Damage(f"{path}: must be a ledger of version 1 to {SCHEMA_VERSION}, but says {version}")
    return version


def _entries(database: sqlite3.Connection, path: Path, version: int) -> Iterator[Entry]:
    rows = database.execute("SELECT sequence, at, elapsed, kind, body, checksum FROM events ORDER BY sequence")
    for position, (*values, checksum) in enumerate(rows, start=1):
        entry = Entry(*values)
        if _CHECKSUMS[version](entry) != checksum:
            raise Damage(f"{path}: event {entry.sequence} must match its checksum, but does not: the file is damaged")
        if entry.sequence != position:
            raise Damage(f"{path}: event {position} must be there, but is missing: the file is damaged")
        yield entry


# How each version of the schema computed its checksums.
_CHECKSUMS: dict[int, Callable[[Entry], int]] = {
    1: lambda entry: zlib.crc32(f"{entry.elapsed!r} {entry.kind} {entry.body}".encode()),
    2: lambda entry: entry.checksum,
}


def _migrate(database: sqlite3.Connection, path: Path) -> None:
    """Step by step to the present schema, each step whole or not at all."""
    while (version := _version(database, path)) < SCHEMA_VERSION:
        with database:
            database.execute("BEGIN IMMEDIATE")
            _STEPS[version](database)
            database.execute(f"PRAGMA user_version = {version + 1}")


def _cover_number_and_time(database: sqlite3.Connection) -> None:
    """Version 1 left `sequence` and `at` out of its checksums."""
    rows = database.execute("SELECT sequence, at, elapsed, kind, body FROM events").fetchall()
    database.executemany(
        "UPDATE events SET checksum = ? WHERE sequence = ?", ((Entry(*row).checksum, row[0]) for row in rows)
    )


# From each version to the next.
_STEPS: dict[int, Callable[[sqlite3.Connection], None]] = {1: _cover_number_and_time}

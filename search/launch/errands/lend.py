"""Lends a run folder as one archive in Ray's log folder, which the dashboard gives to whoever shows the token.

Prints a line of JSON that says what it is, and removes it when it is stopped or nobody has come.
"""

import json
import os
import signal
import sqlite3
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from hashlib import file_digest
from pathlib import Path
from typing import Any

LENT_SECONDS = 1800.0
LEFT_THERE = ("arrays", "scratch", "study.lock", "study.db", "study.db-wal", "study.db-shm")
LEDGER = ("study.yaml", "study.events.jsonl")


def pack(run: Path, archive: Path, ledger_only: bool = False) -> None:
    """Write the archive: all that reads a run or goes on from it needs, the ledger as it is at one moment."""
    with tempfile.TemporaryDirectory() as scratch, tarfile.open(archive, "w:gz", compresslevel=1) as tar:
        snapshot = Path(scratch) / "study.db"
        if (run / "study.db").is_file():
            _snapshot(run / "study.db", snapshot)
            tar.add(snapshot, "study.db")
        files = [run / name for name in LEDGER] if ledger_only else _files(run, _ended(snapshot))
        for path in files:
            try:
                tar.add(path, path.relative_to(run).as_posix(), recursive=False)
            except FileNotFoundError:  # replaced by a newer one meanwhile, or not there yet
                continue


def _snapshot(ledger: Path, target: Path) -> None:
    source = sqlite3.connect(f"{ledger.as_uri()}?mode=ro", uri=True, timeout=30)
    with closing(source), closing(sqlite3.connect(target)) as copy:
        source.backup(copy)
        copy.execute("PRAGMA journal_mode=DELETE")  # one file, without a log beside it


def _ended(ledger: Path) -> set[str]:
    """Folders of trials that will write no more checkpoints."""
    if not ledger.exists():
        return set()
    with closing(sqlite3.connect(ledger)) as database:
        rows = database.execute(
            "SELECT body FROM events WHERE kind IN ('epoch_reported', 'pruned', 'failed')"
        ).fetchall()
    events = [json.loads(body) for (body,) in rows]
    ends = [event for event in events if event.get("verdict") not in ("continue", "pause")]
    return {f"{end['number']}.{end['repeat']}" if end.get("repeat") else str(end["number"]) for end in ends}


def _files(run: Path, ended: set[str]) -> Iterator[Path]:
    for folder, below, names in os.walk(run):  # which passes over folders that vanish meanwhile
        here = Path(folder)
        first, *rest = (*here.relative_to(run).parts, "")
        writing = first == "trials" and rest[1:2] == ["checkpoint"] and rest[0] not in ended
        left = LEFT_THERE if here == run else ()
        below[:] = sorted(name for name in below if name not in left and not name.endswith(".tmp") and not writing)
        for name in sorted(names):
            path = here / name
            if not (writing or name in left or name.endswith(".tmp") or path.is_symlink()) and path.is_file():
                yield path


def lend(asked: dict[str, Any]) -> None:
    """Pack, say so, wait."""
    run = Path(asked["run"]).expanduser().absolute()
    logs = Path("/proc/self/fd/1").readlink().parent  # Ray writes what this prints to a file in its log folder
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(0))
    descriptor, name = tempfile.mkstemp(prefix="thawline-", suffix=".tar.gz", dir=logs)  # 0600
    os.close(descriptor)
    archive = Path(name)
    try:
        pack(run, archive, asked["ledger_only"])
        with archive.open("rb") as stream:
            digest = file_digest(stream, "sha256").hexdigest()
        line = {"file": archive.name, "bytes": archive.stat().st_size, "sha256": digest}
        sys.stdout.write(json.dumps(line) + "\n")
        sys.stdout.flush()
        time.sleep(LENT_SECONDS)
    finally:
        archive.unlink(missing_ok=True)


if __name__ == "__main__":
    lend(json.loads(sys.argv[1]))

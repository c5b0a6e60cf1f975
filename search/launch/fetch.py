"""A run folder brought here from the head: verified, whole or not at all."""

import json
import shutil
import sqlite3
import tarfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from uuid import uuid4

from search.errors import ConfigurationError, StudyStopped
from search.interruption import uninterrupted
from search.launch.door import TERMINAL, Door, Unreachable, last_line
from search.launch.errand import start_errand
from search.launch.parcel import RUNS
from search.leftovers import temporary_folder
from search.paths import ORIGIN, StudyPaths
from search.whole_file import sha256, write_whole

WAIT_SECONDS = 600.0


@dataclass(frozen=True)
class Lent:
    """An archive in the head's log folder."""

    node: str
    file: str
    sha256: str


def check_free(target: Path) -> None:
    """Refuse to fetch over a run that was made here.

    Raises:
        ConfigurationError: what is there and what to do.
    """
    if target.exists() and not (target / ORIGIN).is_file():
        raise ConfigurationError(
            f"{target}: must be free for the run that is fetched, but a run that was made here is there; give "
            "another --name, or move it away"
        )


def check_later(target: Path, arrived: Path) -> None:
    """Refuse to put a run in the place of a copy that has events which it lacks.

    Raises:
        StudyStopped: what is there and what to do.
    """
    if not target.exists():
        return
    here, came = (_moments(StudyPaths(run).ledger) for run in (target, arrived))
    if here != came[: len(here)]:
        raise StudyStopped(
            f"{target}: has events that the fetched run lacks, because it is another study of that name, was gone on "
            "with here, or the cluster has lost them; move it away, then fetch again"
        )


def _moments(ledger: Path) -> list[float]:
    """When each event happened, whatever it was; none where there is no ledger."""
    if not ledger.exists():
        return []
    try:
        with closing(sqlite3.connect(f"{ledger.resolve().as_uri()}?mode=ro", uri=True)) as database:
            return [at for (at,) in database.execute("SELECT at FROM events ORDER BY sequence")]
    except sqlite3.Error as error:
        raise StudyStopped(
            f"{ledger}: must be a ledger to tell what is new, but {error}; move it away, then fetch again"
        ) from error


def fetch_run(door: Door, name: str, target: Path) -> StudyPaths:
    """Bring a study's run folder here. What was added to an earlier copy (an export, say) stays.

    Raises:
        StudyStopped: when it is not on the head, did not arrive whole, or is not a later state of the copy here.
        Unreachable: when the door does not answer.
    """
    check_free(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    with temporary_folder(f".{name[:20]}-", str(target.parent)) as folder:
        arrived = folder / "arrived"
        _download(door, name, folder, arrived, ledger_only=False)
        if not (arrived / "study.yaml").is_file():
            raise StudyStopped(f"{RUNS}/{name} on the cluster must be a run, but there is no study.yaml in it")
        write_whole(arrived / ORIGIN, json.dumps({"address": door.address, "name": name, "at": time.time()}))
        check_later(target, arrived)
        with uninterrupted():
            _put_in_place(arrived, target, folder / "before")
    return StudyPaths(target)


def fetch_ledger(door: Door, name: str, folder: Path) -> Path:
    """Bring only the ledger, into `folder`; its path, where there may be nothing when the study has not begun."""
    arrived = folder / f"ledger-{uuid4().hex}"
    _download(door, name, folder, arrived, ledger_only=True)
    return StudyPaths(arrived).ledger


def extract(archive: Path, target: Path) -> None:
    """Unpack an archive; nothing in it may lead out of `target`, be a link or a device, or bring rights of its own.

    Raises:
        StudyStopped: when it would.
    """
    target.mkdir(mode=0o700)
    try:
        with tarfile.open(archive, "r:gz") as tar:
            for member in tar:
                _unpack(tar, member, target)
    except (tarfile.TarError, EOFError) as error:
        raise StudyStopped(f"a fetched run must be an archive that stays in its folder, but {error}") from error


def _unpack(tar: tarfile.TarFile, member: tarfile.TarInfo, target: Path) -> None:
    """By hand, because tarfile's own filters came with Python 3.11.4."""
    path = PurePosixPath(member.name)
    if path.is_absolute() or ".." in path.parts:
        raise StudyStopped(f"a fetched run must be an archive that stays in its folder, but has {member.name!r}")
    content = tar.extractfile(member) if member.isfile() else None
    if content is None and not member.isdir():
        raise StudyStopped(f"a fetched run must consist of files, but {member.name!r} is none")
    folder = target / path if content is None else (target / path).parent
    folder.mkdir(parents=True, exist_ok=True)
    if content is not None:
        with content, (target / path).open("xb") as file:
            shutil.copyfileobj(content, file)


def _download(door: Door, name: str, folder: Path, arrived: Path, *, ledger_only: bool) -> None:
    archive = folder / "run.tar.gz"
    with _lent(door, {"run": f"{RUNS}/{name}", "ledger_only": ledger_only}) as lent:
        door.download(lent.node, lent.file, archive)
    came = sha256(archive)
    if came != lent.sha256:
        raise StudyStopped(f"what was fetched must have sha256 {lent.sha256}, but has {came}; try --fetch again")
    extract(archive, arrived)
    archive.unlink()


@contextmanager
def _lent(door: Door, asked: dict[str, Any]) -> Iterator[Lent]:
    """While the block runs, the archive lies ready on the head."""
    submission = start_errand(door, "lend", asked)
    try:
        deadline = time.monotonic() + WAIT_SECONDS
        while (line := last_line(door.log(submission))) is None:
            if door.job(submission).status in TERMINAL or time.monotonic() > deadline:
                said = door.log(submission).decode(errors="replace").strip().splitlines()
                raise StudyStopped(f"the cluster must pack the run, but could not: {said[-1] if said else 'no word'}")
            time.sleep(0.5)
        yield Lent(door.job(submission).driver_node_id, line["file"], line["sha256"])
    finally:
        with suppress(Unreachable):  # it ends by itself; what went wrong before, or Ctrl-C, must come through
            door.stop(submission)


def _put_in_place(arrived: Path, target: Path, before: Path) -> None:
    """Exchange two folders; the old one is put back when that fails, and what only it has goes over."""
    if target.exists():
        target.rename(before)
    try:
        arrived.rename(target)
    except OSError:
        if before.exists():
            before.rename(target)
        raise
    for path in before.iterdir() if before.exists() else ():
        if not (target / path.name).exists() and not path.name.startswith("study."):
            shutil.move(path, target / path.name)

"""A ledger's files damaged in every way that fits a rule, and what became of each."""

import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from search.entries import Entry
from search.errors import LedgerError
from search.events import Asked, EpochReported, SessionOpened
from search.ledger import Ledger, read_history
from search.recovery import read_entries

FILES = ("study.db", "study.db-wal", "study.events.jsonl")


def make_ledger(folder: Path, trials: int = 12) -> list[Entry]:
    """The three files as a killed driver leaves them, some events in the log alone; all events that there are."""
    work = folder / "work"
    work.mkdir(parents=True)
    path = work / "study.db"
    with Ledger(path) as ledger:
        ledger.append(SessionOpened("host", 1))
        for number in range(trials // 2):
            ledger.append(Asked(number, {"x": number / 7}, number), EpochReported(number, 1, {"v": 0.5}, "complete"))
    with Ledger(path) as ledger:
        for number in range(trials // 2, trials):
            ledger.append(Asked(number, {"x": number / 7, "text": "ünique"}, number))
        for name in FILES:
            shutil.copy(work / name, folder / name)
        entries = list(read_entries(path))
    shutil.rmtree(work)
    return entries


@dataclass(frozen=True)
class Harm:
    """One file with other content; None: without it."""

    name: str
    content: bytes | None


def cuts(folder: Path, name: str, step: int) -> Iterator[Harm]:
    """The file cut at every so many bytes, and at its last ones."""
    content = (folder / name).read_bytes()
    for length in sorted({*range(0, len(content), step), len(content) - 1}):
        yield Harm(name, content[:length])


def flips(folder: Path, name: str, positions: Iterable[int]) -> Iterator[Harm]:
    """The file with one bit changed at each position."""
    content = (folder / name).read_bytes()
    for position in positions:
        changed = content[position] ^ (1 << position % 8)
        yield Harm(name, content[:position] + bytes([changed]) + content[position + 1 :])


@dataclass
class Outcomes:
    """What became of so many harmed ledgers; `fewer` must stay 0."""

    tried: int = 0
    recovered: int = 0
    refused: int = 0
    fewer: int = 0


def try_harm(folder: Path, harms: Iterable[tuple[Harm, ...]], entries: list[Entry], scratch: Path) -> Outcomes:
    """Read, then open, a copy of the files with each harm: all events must be there, or none be given out."""
    outcomes = Outcomes()
    for harm in harms:
        outcomes.tried += 1
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir()
        for name in FILES:
            shutil.copy(folder / name, scratch / name)
        for each in harm:
            (scratch / each.name).unlink()
            if each.content is not None:
                (scratch / each.name).write_bytes(each.content)
        _count(scratch / "study.db", entries, outcomes)
    return outcomes


def _count(path: Path, entries: list[Entry], outcomes: Outcomes) -> None:
    before = {part.name: part.read_bytes() for part in path.parent.iterdir()}
    try:
        seen = len(read_history(path).trials)
    except LedgerError:
        seen = None
    try:
        with Ledger(path) as ledger:
            ledger.append(Asked(99, {}, 0))
        found = list(read_entries(path))
        kept = found[:-1] == entries and found[-1].kind == "asked"
    except LedgerError:
        outcomes.refused += 1
        after = {part.name: part.read_bytes() for part in path.parent.iterdir() if not part.name.endswith("-shm")}
        if seen is not None or any(after[name] != before[name] for name in after.keys() & before.keys()):
            outcomes.fewer += 1  # a reader gave out what a writer refuses, or refusing changed something
        return
    outcomes.recovered += kept
    outcomes.fewer += not kept or seen not in (None, sum(entry.kind == "asked" for entry in entries))

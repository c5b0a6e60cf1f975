"""The records of a study brought together: what one of them has lost comes back from another, or is refused.

A commit of the database comes after the flush of the journal, so a clean journal has every event that was ever
acknowledged. Nothing that is damaged is deleted: it is moved aside.
"""

import shutil
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from search import database, journal
from search.database import Damage
from search.entries import Entry, unbroken, united
from search.errors import LedgerError
from search.whole_file import flush_folder

_LOOKS = 5  # at files that a writer may be in the middle of changing


def journal_of(path: Path) -> Path:
    """The second record of the ledger at `path`."""
    return path.with_suffix(".events.jsonl")


@dataclass(frozen=True)
class Records:
    """What the records of one study have, each and together.

    Attributes:
        path: Of the database.
        stored: Entries of the database; of a damaged one, those that could be saved.
        damage: What is wrong with the database; None when it is whole.
        pages: What the journal has.
        elsewhere: Entries of other records, by name.
        entries: All of them, united.
    """

    path: Path
    stored: Sequence[Entry]
    damage: str | None
    pages: journal.Pages
    elsewhere: Mapping[str, Sequence[Entry]]
    entries: Sequence[Entry]

    @property
    def complete(self) -> bool:
        """Whether no acknowledged event can be missing."""
        newest = max((entry.sequence for entry in self.pages.entries), default=0)
        if self.brought:
            certain = True  # the copy is all there is
        elif self.damage:
            # A journal that is behind another record was cut itself, however clean.
            certain = bool(self.pages.entries) and self.pages.clean and newest == self.entries[-1].sequence
        else:
            certain = self.pages.clean or len(self.stored) >= newest
        return certain and len(unbroken(self.entries)) == len(self.entries)

    @property
    def brought(self) -> bool:
        """Whether nothing is here: a new study, or one that comes back from its copy."""
        return not (self.path.exists() or journal_of(self.path).exists())

    @property
    def lost(self) -> str:
        """Which events are missing or may be."""
        kept, all_ = len(unbroken(self.entries)), len(self.entries)
        newest = self.entries[-1].sequence if self.entries else 0
        if kept < all_:
            return f"of at least {newest} events, {newest - all_} are lost, the first is number {kept + 1}"
        return f"{kept} events can be saved, but later ones may be lost"


def gather(path: Path, elsewhere: Mapping[str, Sequence[Entry]] | None = None) -> Records:
    """Read every record of a study; changes nothing.

    Raises:
        LedgerError: when the records contradict each other, or the database is of an unknown version.
    """
    elsewhere = elsewhere or {}
    damage = None
    try:
        stored = database.read(path)
    except Damage as error:
        stored, damage = database.salvage(path), str(error)
    pages = journal.read_journal(journal_of(path))
    named = {path.name: stored, journal_of(path).name: pages.entries, **elsewhere}
    return Records(path, stored, damage, pages, elsewhere, united(named))


def read_entries(path: Path) -> Sequence[Entry]:
    """All entries of a study, for a reader: beside a writer, and changing nothing.

    Raises:
        LedgerError: when some may be missing.
    """
    for _ in range(_LOOKS):
        try:
            stored = database.read(path)
            newest = journal.last_sequence(journal_of(path))
        except Damage:
            newest = None
        if newest is not None and newest <= len(stored):
            return stored
        records = gather(path)
        if records.complete:
            return records.entries
        time.sleep(0.05)
    raise LedgerError(_refusal(records))


def recover(records: Records, accept_loss: bool = False) -> str | None:
    """Make database and journal whole and equal.

    Args:
        records: As they were just read, by the one writer.
        accept_loss: Go on with the events before the first that is lost, if any is.

    Returns:
        What was done, in a line; None when nothing needs to be said.

    Raises:
        LedgerError: when acknowledged events may be missing and that was not accepted; nothing is changed then.
        OSError: when the files can't be written.
    """
    if not records.complete and not accept_loss:
        raise LedgerError(_refusal(records))
    entries = unbroken(records.entries)
    if records.brought:
        database.create(records.path, entries)
        journal.write_journal(journal_of(records.path), entries)
        return None  # who brought them has said so
    told = [*_mend_journal(records, entries), *_mend_database(records, entries)]  # a kill between leaves one whole
    if not told:
        return None
    return f"{'; '.join(told)}; {'nothing is lost' if records.complete else records.lost}"


def _mend_database(records: Records, entries: Sequence[Entry]) -> list[str]:
    path = records.path
    if records.damage or len(entries) < len(records.stored):
        aside = _move_aside(path, database.COMPANIONS)
        database.create(path, entries)
        kept = f", what was there is kept as {aside.name}" if aside else ""
        return [f"{records.damage or path}: made anew from {_sources(records)}{kept}"]
    missing = entries[len(records.stored) :]
    if not missing:
        return []
    with closing(database.open_for_writing(path)) as connection:
        database.insert(connection, missing)
    if len(missing) == 1:  # what every kill between journal and commit leaves
        return []
    return [f"{path}: {len(missing)} events came back from {_sources(records)}"]


def _mend_journal(records: Records, entries: Sequence[Entry]) -> list[str]:
    path = journal_of(records.path)
    pages = records.pages
    if pages.clean and list(pages.entries) == list(entries):
        return []
    damaged = not (pages.clean or pages.torn)
    told = []
    if damaged or len(pages.entries) > len(entries):
        aside = _free_name(path, ("",))
        shutil.copyfile(path, aside)
        told = [f"{path}: was damaged and is made anew, what was there is kept as {aside.name}"]
    journal.write_journal(path, entries)
    return told


def _sources(records: Records) -> str:
    """The records that had what the database had not."""
    stored = set(records.stored)
    named: dict[str, Iterable[Entry]] = {journal_of(records.path).name: records.pages.entries, **records.elsewhere}
    return " and ".join(name for name, entries in named.items() if set(entries) - stored) or "what could be read of it"


def _free_name(path: Path, endings: Sequence[str]) -> Path:
    """The first `NAME.damaged-N` that neither a file nor its companions have."""
    number = 1
    while any(path.with_name(f"{path.name}.damaged-{number}{ending}").exists() for ending in endings):
        number += 1
    return path.with_name(f"{path.name}.damaged-{number}")


def _move_aside(path: Path, endings: Sequence[str]) -> Path | None:
    """Rename a file and its companions; None when there is none of them."""
    aside, moved = _free_name(path, endings), False
    # The log first: beside a new database it would be taken for that one's.
    for ending in reversed(endings):
        part = path.with_name(path.name + ending)
        if part.exists():
            part.rename(aside.with_name(aside.name + ending))
            moved = True
    flush_folder(path.parent)
    return aside if moved else None


def _refusal(records: Records) -> str:
    second = journal_of(records.path)
    problem = records.damage or f"{records.path}: must have every event that was acknowledged, but does not"
    state = "is damaged too" if second.exists() else "is missing"
    return (
        f"{problem}; {second.name} beside it {state}; {records.lost}. Both are left as they are. Put back a copy of "
        f"one of them, or, to go on without what is lost: thawline search {records.path.parent.name} --accept-loss"
    )

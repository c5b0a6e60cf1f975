"""F24, F25, F26: a ledger cut or changed anywhere gives every acknowledged event, or is refused as it lies."""

import itertools
import random
import sqlite3
from contextlib import closing

import damage
import pytest

from search.errors import LedgerError
from search.events import Asked
from search.journal import read_journal
from search.ledger import Ledger, read_history

DB, LOG, JOURNAL = damage.FILES


@pytest.fixture(scope="module")
def ledger(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ledger")
    return folder, damage.make_ledger(folder)


def outcomes(ledger, memory, *harms):
    folder, entries = ledger
    return damage.try_harm(folder, harms, entries, memory / "scratch")


@pytest.mark.parametrize("name", [DB, LOG, JOURNAL])
def test_f24_a_file_of_the_ledger_cut_anywhere_loses_no_event(ledger, memory, name):
    """At 1,024-byte steps and the last byte here; `make faults` takes every 64."""
    found = outcomes(ledger, memory, *((harm,) for harm in damage.cuts(ledger[0], name, 1024)))
    assert (found.recovered, found.refused, found.fewer) == (found.tried, 0, 0)
    assert found.tried > 4


def test_f24_both_records_cut_are_refused_and_left_as_they_are(ledger, memory):
    databases = list(damage.cuts(ledger[0], DB, 4096))
    journals = list(damage.cuts(ledger[0], JOURNAL, 700))
    ended = [harm for harm in journals if harm.content.endswith(b"\n")]
    harms = [(first, second) for first, second in itertools.product(databases, journals) if second not in ended]
    found = outcomes(ledger, memory, *harms)
    assert (found.recovered + found.refused, found.fewer) == (found.tried, 0)
    assert found.refused > 5  # the others have all pages of the database in its log


def test_f24_one_record_gone_comes_back_from_the_other(ledger, memory):
    found = outcomes(ledger, memory, (damage.Harm(DB, None), damage.Harm(LOG, None)), (damage.Harm(JOURNAL, None),))
    assert (found.recovered, found.fewer) == (2, 0)


def test_f25_a_torn_last_line_is_mended_before_anything_is_appended(ledger, memory):
    content = (ledger[0] / JOURNAL).read_bytes()
    last = len(content.splitlines(keepends=True)[-1])
    harms = [(damage.Harm(JOURNAL, content[:-cut]),) for cut in (*range(1, last, 7), last)]
    found = outcomes(ledger, memory, *harms)
    assert (found.recovered, found.fewer) == (found.tried, 0)
    pages = read_journal(memory / "scratch" / JOURNAL)
    assert pages.clean
    assert [entry.sequence for entry in pages.entries] == list(range(1, len(ledger[1]) + 2))


def test_f25_half_a_line_that_was_never_acknowledged_is_dropped(ledger, memory):
    content = (ledger[0] / JOURNAL).read_bytes()
    found = outcomes(ledger, memory, (damage.Harm(JOURNAL, content + b'[99, 1.0, 2.0, "asked", "{'),))
    assert (found.recovered, found.fewer) == (1, 0)


@pytest.mark.parametrize("name", [DB, LOG, JOURNAL])
def test_f26_a_changed_bit_in_a_file_of_the_ledger_changes_no_event(ledger, memory, name):
    size = (ledger[0] / name).stat().st_size
    positions = {*range(0, 100, 4), *random.Random(1).sample(range(size), 60)}
    found = outcomes(ledger, memory, *((harm,) for harm in damage.flips(ledger[0], name, sorted(positions))))
    assert (found.recovered + found.refused, found.fewer) == (found.tried, 0)
    assert found.refused <= 4  # a version that is not known yet: nothing may be done to such a file


def test_f26_a_damaged_database_is_kept_aside_and_its_study_goes_on(ledger, memory):
    outcomes(ledger, memory, (damage.Harm(DB, b"no database"),))
    scratch = memory / "scratch"
    assert (scratch / f"{DB}.damaged-1").read_bytes() == b"no database"
    (scratch / DB).write_bytes(b"again")
    with Ledger(scratch / DB) as opened:
        assert "file is not a database: made anew from study.events.jsonl" in opened.recovered
        assert opened.recovered.endswith(f"what was there is kept as {DB}.damaged-2; nothing is lost")
        opened.append(Asked(100, {}, 0))
    assert 100 in {trial.number for trial in read_history(scratch / DB).search_trials()}


def test_f26_a_damaged_line_is_found_though_the_database_is_whole(ledger, memory):
    content = (ledger[0] / JOURNAL).read_bytes()
    outcomes(ledger, memory, (damage.Harm(JOURNAL, content.replace(b"0.5", b"0.6", 1)),))
    kept = (memory / "scratch" / f"{JOURNAL}.damaged-1").read_bytes()
    assert kept == content.replace(b"0.5", b"0.6", 1)


@pytest.fixture
def without_journal(ledger, memory):
    """A ledger that has nothing to be mended from, its log folded in."""
    for name in (DB, LOG):
        (memory / name).write_bytes((ledger[0] / name).read_bytes())
    with closing(sqlite3.connect(memory / DB)) as database:
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return memory / DB


def test_f26_without_a_second_record_damage_is_refused_with_what_to_do(without_journal):
    content = without_journal.read_bytes()
    found = content.index('"ünique"'.encode())
    damaged = content[: found + 5] + b"X" + content[found + 6 :]
    without_journal.write_bytes(damaged)
    for reading in (read_history, Ledger):
        with pytest.raises(LedgerError) as caught:
            reading(without_journal)
        assert "must match its checksum, but does not: the file is damaged" in str(caught.value)
        assert "study.events.jsonl beside it is missing" in str(caught.value)
        assert "Put back a copy of one of them, or, to go on without what is lost: thawline search" in str(caught.value)
    assert without_journal.read_bytes() == damaged


def test_f26_what_is_lost_is_given_up_only_when_the_user_says_so(without_journal):
    with closing(sqlite3.connect(without_journal)) as database:
        database.execute("DELETE FROM events WHERE sequence = 9")
        database.commit()
    with pytest.raises(LedgerError, match=r"of at least 19 events, 1 are lost, the first is number 9"):
        Ledger(without_journal)
    with Ledger(without_journal, accept_loss=True) as opened:
        assert opened.sequence == 8
        assert "kept as study.db.damaged-1; of at least 19 events, 1 are lost" in opened.recovered
    assert len(read_history(without_journal).search_trials()) == 4


def test_f26_a_journal_that_is_behind_the_rest_of_a_damaged_database_vouches_for_nothing(without_journal, ledger):
    lines = (ledger[0] / JOURNAL).read_bytes().splitlines(keepends=True)
    (without_journal.parent / JOURNAL).write_bytes(b"".join(lines[:5]))
    with closing(sqlite3.connect(without_journal)) as database:
        database.execute("UPDATE events SET body = '{}' WHERE sequence = 19")
        database.commit()
    for reading in (read_history, Ledger):
        with pytest.raises(LedgerError, match="18 events can be saved, but later ones may be lost"):
            reading(without_journal)
    with Ledger(without_journal, accept_loss=True) as opened:
        assert opened.sequence == 18


def test_f26_a_lost_end_is_told_by_the_count_that_the_database_keeps(without_journal):
    with closing(sqlite3.connect(without_journal)) as database:
        database.execute("DELETE FROM events WHERE sequence > 17")
        database.commit()
    with pytest.raises(LedgerError, match="must have 19 events, but has 17"):
        Ledger(without_journal)


def test_f26_records_of_two_studies_are_not_mixed(ledger, memory):
    (memory / "a").mkdir()
    with Ledger(memory / "a" / DB) as other:
        other.append(Asked(5, {}, 5))
    (memory / JOURNAL).write_bytes((ledger[0] / JOURNAL).read_bytes())
    (memory / DB).write_bytes((memory / "a" / DB).read_bytes())
    for reading in (read_history, Ledger):
        with pytest.raises(LedgerError, match=r"event 1 must be the same in every record .* study.db and study.events"):
            reading(memory / DB)

import math
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing

import pytest

from search import database
from search.entries import Entry
from search.errors import LedgerError
from search.events import Asked, EpochReported, Failed, Noted, SessionOpened, Started, to_json
from search.journal import Journal, read_journal
from search.ledger import SCHEMA_VERSION, Ledger, read_history
from search.recovery import journal_of

OPENED = SessionOpened("host", 1)


def asked(*numbers):
    return [Asked(number, {"a": number / 7, "text": "ünique"}, number) for number in numbers]


def numbers(history):
    """Which trials there are, in their order."""
    return [trial.number for trial in history.search_trials()]


def rows(path):
    """What the ledger says, without times."""
    history = read_history(path)
    return [(t.key, t.parameters, t.status, [(e.epoch, e.metrics) for e in t.epochs]) for t in history.trials.values()]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "study.db"


@pytest.fixture
def closed(path):
    """A ledger of 40 trials, closed in order."""
    with Ledger(path) as ledger:
        ledger.append(OPENED)
        for number in range(40):
            ledger.append(*asked(number), EpochReported(number, 1, {"v": number / 3}, "complete"))
    return path


def test_events_are_read_in_the_order_in_which_they_were_appended(path):
    with Ledger(path) as ledger:
        ledger.append(OPENED, *asked(3, 1, 2))
        ledger.append(Started(1), EpochReported(1, 1, {"v": math.nan}, "continue"), Failed(1, "why"))
        before = ledger.history
    with Ledger(path) as ledger:
        assert numbers(ledger.history) == [3, 1, 2]
        assert repr(ledger.history.trials) == repr(before.trials)
        ledger.append(*asked(0))
    assert numbers(read_history(path)) == [3, 1, 2, 0]


def test_an_event_is_durable_before_anybody_hears_of_it(path):
    heard = []
    with Ledger(path) as ledger:
        ledger.listeners.append(lambda event: heard.append((event, numbers(read_history(path)))))
        ledger.append(*asked(0))
        ledger.append(*asked(1))
    assert [seen for _, seen in heard] == [[0], [0, 1]]


def test_a_commit_waits_for_the_disk(path):
    with Ledger(path) as ledger:
        assert ledger._database.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL
        assert ledger._database.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_everything_acknowledged_survives_the_writers_sudden_death(path):
    script = """
        import sys
        from pathlib import Path
        from search.events import Asked
        from search.ledger import Ledger
        ledger = Ledger(Path(sys.argv[1]))
        number = 0
        while True:
            ledger.append(Asked(number, {}, 0))
            print(number, flush=True)
            number += 1
    """
    lines = [line.removeprefix("        ") for line in script.splitlines()]
    writer = subprocess.Popen([sys.executable, "-c", "\n".join(lines), str(path)], stdout=subprocess.PIPE, text=True)
    while writer.stdout.readline() != "30\n":
        pass
    writer.kill()
    last = int(("30\n" + writer.stdout.read()).splitlines()[-1])
    writer.wait()
    writer.stdout.close()
    found = numbers(read_history(path))
    assert found in (list(range(last + 1)), list(range(last + 2)))  # one may have become durable unacknowledged


def test_a_reader_beside_the_writer_sees_what_is_committed_and_disturbs_nothing(path):
    with Ledger(path) as ledger:
        for number in range(20):
            ledger.append(*asked(number))
            assert numbers(read_history(path)) == list(range(number + 1))


def test_a_batch_is_appended_as_a_whole_or_not_at_all(path):
    with Ledger(path) as ledger:
        with pytest.raises(TypeError):
            ledger.append(*asked(0), Noted("it", {"a": object()}))
        assert numbers(ledger.history) == []
    assert numbers(read_history(path)) == []


def test_an_append_that_fails_changes_nothing_and_can_be_tried_again(path):
    heard = []
    with Ledger(path) as ledger:
        ledger.append(*asked(0))
        ledger.listeners.append(heard.append)
        ledger._database.execute("PRAGMA query_only = 1")
        with pytest.raises(
            LedgerError, match=r"study.db: every event must be durable .* readonly database; free space"
        ):
            ledger.append(*asked(1))
        assert (numbers(ledger.history), numbers(read_history(path)), heard) == ([0], [0], [])
        ledger._database.execute("PRAGMA query_only = 0")
        ledger.append(*asked(1))
    assert numbers(read_history(path)) == [0, 1]


def test_a_full_disk_costs_only_what_was_not_acknowledged(path):
    with Ledger(path) as ledger:
        ledger.append(*asked(0))
        [pages] = ledger._database.execute("PRAGMA page_count").fetchone()
        ledger._database.execute(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(LedgerError, match="full"):
            ledger.append(Noted("large", {"text": "x" * 100_000}))
        assert ledger.history.notes == []
    with Ledger(path) as ledger:
        assert numbers(ledger.history) == [0]
        ledger.append(Noted("large", {"text": "x" * 100_000}))
    assert len(read_history(path).notes) == 1


def test_a_copy_taken_with_its_log_has_everything(path, tmp_path):
    with Ledger(path) as ledger:
        ledger.append(*asked(0, 1, 2))
        for name in ("study.db", "study.db-wal"):
            shutil.copy(tmp_path / name, tmp_path / name.replace("study", "copy"))
    assert numbers(read_history(tmp_path / "copy.db")) == [0, 1, 2]


def test_closing_leaves_the_two_records_and_nothing_else(closed):
    assert sorted(each.name for each in closed.parent.iterdir()) == ["study.db", "study.events.jsonl"]


def test_a_ledger_of_another_version_is_refused_untouched(closed):
    database = sqlite3.connect(closed)
    database.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    database.close()
    content = closed.read_bytes()
    for reading in (read_history, Ledger):
        with pytest.raises(
            LedgerError, match=f"version {SCHEMA_VERSION} is needed, but got {SCHEMA_VERSION + 1}; use the"
        ):
            reading(closed)
    assert closed.read_bytes() == content


def test_what_is_no_ledger_is_refused(path):
    with pytest.raises(LedgerError, match="there is no such file"):
        read_history(path)
    assert not path.exists()
    text = "number,value\n" * 1000
    path.write_text(text)
    for reading in (read_history, Ledger):
        with pytest.raises(LedgerError, match="must be a readable SQLite file, but file is not a database"):
            reading(path)
    assert path.read_text() == text


def test_both_records_have_the_same_events(closed):
    with Ledger(closed) as ledger:
        ledger.append(*asked(40, 41))
        assert database.read(closed) == list(read_journal(journal_of(closed)).entries)
        assert ledger.sequence == len(database.read(closed)) == 83


def test_an_event_that_only_the_journal_has_came_just_before_a_kill_and_counts(path):
    with Ledger(path) as ledger:
        ledger.append(*asked(0))
    with Journal(journal_of(path)) as journal:
        journal.append([Entry(2, 0.0, 0.0, "asked", to_json(asked(1)[0]))])
    assert numbers(read_history(path)) == [0, 1]
    with Ledger(path) as ledger:
        assert (numbers(ledger.history), ledger.recovered) == ([0, 1], None)
        ledger.append(*asked(2))
    assert [entry.sequence for entry in database.read(path)] == [1, 2, 3]


def test_a_second_writer_cannot_put_its_events_between_those_of_the_first(path):
    with Ledger(path) as first, Ledger(path) as second:
        first.append(*asked(0))
        with pytest.raises(LedgerError, match="UNIQUE constraint failed"):
            second.append(*asked(7))
        first.append(*asked(1))
    assert numbers(read_history(path)) == [0, 1]


VERSION_1 = """
CREATE TABLE events (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT, at REAL NOT NULL, elapsed REAL NOT NULL, kind TEXT NOT NULL,
    body TEXT NOT NULL, checksum INTEGER NOT NULL
) STRICT;
INSERT INTO events VALUES (1, 1790000000.25, 0.0, 'session_opened', '{"host": "h", "process": 1}', 2560033522);
INSERT INTO events VALUES (2, 1790000001.5, 1.25, 'asked', '{"number": 0, "parameters": {"x": 0.1}, "seed": 3, "origin": "sampler", "repeat": 0, "system_attributes": {}}', 2275821293);
INSERT INTO events VALUES (3, 1790000002.5, 2.5, 'epoch_reported', '{"number": 0, "epoch": 1, "metrics": {"v": 0.5}, "verdict": "complete", "repeat": 0, "reason": null, "seconds": {}, "system_attributes": {}}', 1355717555);
PRAGMA user_version = 1;
"""  # noqa: E501 - as that version wrote it


@pytest.fixture
def version_1(path):
    with closing(sqlite3.connect(path)) as made:
        made.executescript(VERSION_1)
    return path


def test_a_ledger_of_version_1_is_read_as_it_is(version_1):
    content = version_1.read_bytes()
    [trial] = read_history(version_1).search_trials()
    assert (trial.parameters, trial.status, trial.epochs[0].metrics) == ({"x": 0.1}, "completed", {"v": 0.5})
    assert version_1.read_bytes() == content


def test_a_ledger_of_version_1_is_brought_up_to_date_by_its_next_writer(version_1):
    before = rows(version_1)
    with Ledger(version_1) as ledger:
        ledger.append(*asked(1))
    with closing(sqlite3.connect(version_1)) as made:
        assert made.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION,)
    assert rows(version_1)[:1] == before
    assert numbers(read_history(version_1)) == [0, 1]
    assert len(read_journal(journal_of(version_1)).entries) == 4


def test_a_damaged_ledger_of_version_1_is_not_brought_up_to_date(version_1):
    with closing(sqlite3.connect(version_1)) as made:
        made.execute("UPDATE events SET body = replace(body, '0.5', '0.6') WHERE sequence = 3")
        made.commit()
    for reading in (read_history, Ledger):
        with pytest.raises(LedgerError, match="event 3 must match its checksum"):
            reading(version_1)


@pytest.mark.parametrize(("kind", "body"), [("danced", "{}"), ("asked", '{"number": 0, "shoe": 43}'), ("asked", "[")])
def test_an_event_of_a_newer_thawline_is_named_and_left_alone(closed, kind, body):
    whole = database.read(closed)
    closed.unlink()
    database.create(closed, [*whole, Entry(len(whole) + 1, 0.0, 0.0, kind, body)])
    for reading in (read_history, Ledger):
        with pytest.raises(LedgerError, match=rf"event 82 must be one that this Thawline knows, but '{kind}' is not"):
            reading(closed)


def test_a_reason_that_is_not_unicode_is_recorded_and_reads_back(path):
    with Ledger(path) as ledger:
        ledger.append(*asked(0), Failed(0, "no such file: b\udcffd.png"))
    assert read_history(path).search_trials()[0].reason == "no such file: b\udcffd.png"

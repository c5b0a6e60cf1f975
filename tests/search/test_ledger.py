import math
import random
import shutil
import sqlite3
import subprocess
import sys
from types import SimpleNamespace

import pytest

from search.errors import LedgerError
from search.events import Asked, EpochReported, Failed, Noted, SessionOpened, Started, TrialKey
from search.ledger import SCHEMA_VERSION, Ledger, read_history

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


def test_a_changed_byte_in_an_event_is_refused(closed):
    content = closed.read_bytes()
    found = content.index('"ünique"'.encode())
    closed.write_bytes(content[: found + 5] + b"X" + content[found + 6 :])
    for reading in (read_history, Ledger):
        with pytest.raises(LedgerError, match=r"study.db: event \d+ must match its checksum, but does not"):
            reading(closed)


def test_a_changed_bit_anywhere_is_refused_or_changes_no_event(closed):
    content, expected = closed.read_bytes(), rows(closed)
    draw = random.Random(1)
    refused = 0
    for _ in range(150):
        position, bit = draw.randrange(len(content)), 1 << draw.randrange(8)
        closed.write_bytes(content[:position] + bytes([content[position] ^ bit]) + content[position + 1 :])
        try:
            assert rows(closed) == expected, (position, bit)
        except LedgerError:
            refused += 1
    assert refused > 30


def test_a_damaged_description_of_the_table_is_refused(closed):
    content = closed.read_bytes()
    found = content.index(b"CREATE TABLE events")
    closed.write_bytes(content[: found + 2] + b"\xc5" + content[found + 3 :])  # no longer UTF-8
    with pytest.raises(LedgerError, match="must be a readable SQLite file"):
        read_history(closed)


@pytest.mark.parametrize("share", [0, 0.001, 0.1, 0.3, 0.5, 0.9, 0.9999])
def test_a_closed_ledger_cut_anywhere_is_refused_and_left_as_it_is(closed, share):
    content = closed.read_bytes()
    for length in {int(share * len(content)), int(share * len(content)) // 4096 * 4096}:
        closed.write_bytes(content[:length])
        for reading in (read_history, Ledger):
            with pytest.raises(LedgerError, match=r"study.db: (must be a|event \d+ must match)"):
                reading(closed)
        assert closed.stat().st_size == length


def test_a_damaged_write_ahead_log_gives_the_first_events_and_all_that_were_checkpointed(closed, tmp_path):
    """What a machine without power leaves: SQLite ends the log at the first frame that is not whole."""
    checkpointed = numbers(read_history(closed))
    copy = tmp_path / "copy.db"
    log, log_copy = tmp_path / "study.db-wal", tmp_path / "copy.db-wal"
    with Ledger(closed) as ledger:
        for number in range(40, 60):
            ledger.append(*asked(number))
        main, frames = closed.read_bytes(), log.read_bytes()
        everything = numbers(ledger.history)
    draw = random.Random(2)
    lengths = set()
    for turn in range(60):
        position = draw.randrange(len(frames))
        damaged = frames[:position] + (b"" if turn % 2 else bytes([frames[position] ^ 1]) + frames[position + 1 :])
        (tmp_path / "copy.db-shm").unlink(missing_ok=True)
        copy.write_bytes(main)
        log_copy.write_bytes(damaged)
        found = numbers(read_history(copy))
        assert found == everything[: len(found)]
        assert len(found) >= len(checkpointed)
        lengths.add(len(found))
    assert len(lengths) > 10


def test_a_copy_taken_with_its_log_has_everything(path, tmp_path):
    with Ledger(path) as ledger:
        ledger.append(*asked(0, 1, 2))
        for name in ("study.db", "study.db-wal"):
            shutil.copy(tmp_path / name, tmp_path / name.replace("study", "copy"))
    assert numbers(read_history(tmp_path / "copy.db")) == [0, 1, 2]


def test_closing_folds_everything_into_one_file(closed):
    assert [each.name for each in closed.parent.iterdir()] == ["study.db"]


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
    path.write_text("number,value\n" * 1000)
    for reading in (read_history, Ledger):
        with pytest.raises(LedgerError, match="must be a readable SQLite file, but file is not a database"):
            reading(path)


class Clock:
    """Seconds that pass only when a test says so."""

    def __init__(self, monkeypatch):
        self.now = 1000.0
        monkeypatch.setattr("search.ledger.time", SimpleNamespace(monotonic=lambda: self.now, time=lambda: 0.0))


def test_used_time_stands_still_while_no_driver_runs(path, monkeypatch):
    clock = Clock(monkeypatch)
    with Ledger(path) as ledger:
        ledger.append(OPENED)
        clock.now += 60
        ledger.append(*asked(0))
        clock.now += 5
        assert ledger.elapsed == 65
    clock.now += 3600
    with Ledger(path) as ledger:
        ledger.append(OPENED)
        assert ledger.elapsed == 60  # nothing was recorded after that
        clock.now += 30
        ledger.append(*asked(1))
        assert ledger.elapsed == 90
    assert [trial.asked_at for trial in read_history(path).search_trials()] == [60, 90]


def test_a_machine_whose_clock_was_set_back_orders_nothing_differently(path, monkeypatch):
    clock = Clock(monkeypatch)
    with Ledger(path) as ledger:
        ledger.append(OPENED, *asked(0))
    clock.now = -5e6  # another machine, just booted
    with Ledger(path) as ledger:
        ledger.append(OPENED)
        clock.now += 2
        ledger.append(*asked(1), Started(0))
    history = read_history(path)
    assert numbers(history) == [0, 1]
    assert history.trials[TrialKey(0)].started_at == 2

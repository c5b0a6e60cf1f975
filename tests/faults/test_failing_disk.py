"""F22, F23, F30: whatever write fails, what was there before is still there, and the next start goes on."""

import errno
import json
import os
import subprocess

import failing_disk as disk
import pytest
import soak

from analysis.export import export_trial
from analysis.trials import read_trials, write_table
from search.config import StudyConfig
from search.errors import LedgerError
from search.events import Asked, EpochReported, SessionOpened
from search.journal import read_journal
from search.ledger import Ledger, read_history
from search.recovery import read_entries
from search.whole_file import write_whole

CODES = [errno.ENOSPC, errno.EIO]


def every_call_fails_once(folder, act, check, code, least):
    """Run `act` with its first, second, third … write failing until it succeeds; `check` after each, told whether it
    raised.
    """
    for number in range(1, 500):
        with disk.failing_disk(disk.FailingDisk(folder, number, code)) as failing:
            try:
                act(number)
                raised = None
            except (OSError, LedgerError) as error:
                raised = error
        check(number, raised)
        if not failing.failed:
            assert raised is None
            assert number > least
            return
    raise AssertionError("it must succeed once no call fails")


@pytest.mark.parametrize("code", CODES)
def test_f23_the_nth_failing_write_of_the_ledger_loses_nothing_acknowledged(tmp_path, code):
    """Python's own writes, those of the journal and of whole files; SQLite's are made to fail by a full disk below."""
    path = tmp_path / "study.db"
    acknowledged = []

    def act(number):
        with Ledger(path) as ledger:
            for turn in range(2):
                event = Asked(1000 * number + turn, {}, 0)
                ledger.append(event)
                acknowledged.append(event.number)

    def check(number, raised):
        with Ledger(path) as ledger:
            found = [trial.number for trial in ledger.history.search_trials()]
            assert [each for each in found if each in acknowledged] == acknowledged
        assert list(read_entries(path)) == list(read_journal(tmp_path / "study.events.jsonl").entries)

    every_call_fails_once(tmp_path, act, check, code, least=4)


@pytest.mark.parametrize("code", CODES)
def test_f23_the_nth_failing_write_of_a_whole_file_keeps_the_one_before(tmp_path, code):
    path = tmp_path / "it"
    write_whole(path, "old")

    def check(number, raised):
        assert path.read_text() == ("old" if raised and path.read_text() != "new" else "new")
        assert list(tmp_path.iterdir()) == [path]
        write_whole(path, "old")

    every_call_fails_once(tmp_path, lambda number: write_whole(path, "new"), check, code, least=4)


@pytest.fixture
def run(tmp_path):
    """A run of one finished trial."""
    config = soak.study(tmp_path, 1, storage_copy=None)
    root = tmp_path / "it"
    root.mkdir()
    (root / "study.yaml").write_text(json.dumps(config.dump()))
    with Ledger(root / "study.db") as ledger:
        ledger.append(SessionOpened("h", 1), Asked(0, {"x": 0.5, "kind": "a"}, 0))
        ledger.append(EpochReported(0, 1, {"v": 0.5}, "complete"))
    return root


@pytest.mark.parametrize("ending", ["csv", "parquet", "json"])
@pytest.mark.parametrize("code", CODES)
def test_f23_the_nth_failing_write_of_the_trial_table_keeps_the_one_before(run, code, ending):
    path, table = run / f"trials.{ending}", read_trials(run)
    write_table(table, path)
    before = path.read_bytes()

    def check(number, raised):
        assert path.read_bytes() == before
        assert not list(run.glob(".*"))

    every_call_fails_once(run, lambda number: write_table(table, path), check, code, least=3)


@pytest.mark.parametrize("code", CODES)
def test_f23_the_nth_failing_write_of_the_export_keeps_the_one_before(run, code):
    path = run / "best.yaml"
    export_trial(str(run), None, None)
    before = path.read_text()

    def check(number, raised):
        assert path.read_text() == before
        assert StudyConfig.load(path).training

    every_call_fails_once(run, lambda number: export_trial(str(run), None, None), check, code, least=3)


def test_f23_the_nth_failing_write_of_a_whole_session_is_made_good_by_the_next(memory):
    """Every ninth call; `make faults` takes each."""
    result = soak.fail_every_write(memory, errno.EIO, step=9)
    assert result.tried > 7
    assert (result.recovered, result.wrong) == (result.tried, [])


def full_disk(tmp_path, size):
    """A file system of so many kilobytes; skips where none can be mounted."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}k", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"only root can mount a small file system: {mounted.stderr.decode().strip()}")
    return folder


@pytest.fixture
def small(tmp_path):
    folder = full_disk(tmp_path, 1500)
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_f22_a_disk_that_is_full_at_any_moment_loses_nothing_acknowledged(small):
    """SQLite's own writes included: the space left before each start differs by a page."""
    path, filler = small / "study.db", small / "filler"
    acknowledged, failures = [], 0
    for turn in range(24):
        filler.unlink(missing_ok=True)
        with Ledger(path) as ledger:  # a full disk before is forgotten
            assert [trial.number for trial in ledger.history.search_trials()] == sorted(
                {*acknowledged, *(trial.number for trial in ledger.history.search_trials())}
            )
            assert set(acknowledged) <= {trial.number for trial in ledger.history.search_trials()}
            if len(ledger.history.trials) > 60:
                break
            free = os.statvfs(small)
            filler.write_bytes(b"\0" * (free.f_bavail * free.f_frsize - 4096 * (turn % 12)))
            for number in range(len(ledger.history.trials), 500):
                try:
                    ledger.append(Asked(number, {"text": "x" * 200}, 0))
                except LedgerError as error:
                    assert "every event must be durable before it is acted on" in str(error)  # noqa: PT017
                    failures += 1
                    break
                acknowledged.append(number)
    assert failures >= 10
    assert list(read_entries(path)) == list(read_journal(small / "study.events.jsonl").entries)


def test_f22_a_study_on_a_full_disk_stops_with_the_reason_and_resumes_when_there_is_space(small):
    config = soak.study(small, 5, storage_copy=None)
    filler = small / "filler"
    free = os.statvfs(small)
    filler.write_bytes(b"\0" * (free.f_bavail * free.f_frsize - 250_000))
    first = soak.fork_driver(config)
    assert os.WEXITSTATUS(first.status) == 1
    assert first.told  # it had begun its work
    filler.unlink()
    second = soak.fork_driver(config)
    assert second.status == 0
    outline = soak.outline(soak.StudyPaths(small / "it"), config)
    assert outline == soak.uninterrupted(5, storage_copy=None)


def test_f30_a_disk_that_turns_read_only_in_mid_run_loses_nothing(small):
    path = small / "study.db"
    with Ledger(path) as ledger:
        ledger.append(Asked(0, {}, 0))
        held = os.open(small / "study.events.jsonl", os.O_RDONLY)
        os.close(held)
        with disk.failing_disk(disk.FailingDisk(small, 1, errno.EROFS, lasting=True)):
            for _ in range(2):
                with pytest.raises(LedgerError, match=r"Read-only file system: .*free space or mend the disk"):
                    ledger.append(Asked(1, {}, 0))
        assert [trial.number for trial in read_history(path).search_trials()] == [0]
        ledger.append(Asked(1, {}, 0))
    assert [trial.number for trial in read_history(path).search_trials()] == [0, 1]

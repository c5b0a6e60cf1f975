"""F16, F17, F32, F33: one driver at a time, whoever asks, and whatever the file system is worth."""

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import soak

from search import disk, lock
from search.driver import Session
from search.errors import ConfigurationError, LedgerError
from search.events import Asked
from search.journal import read_journal
from search.ledger import Ledger, read_history
from search.lock import Holder, driver_at_work, exclusive
from search.opening import only_driver
from search.paths import StudyPaths
from search.view.progress import View

# A driver whose trials take a while; exit code 2 and the reason when it is refused, as the command line does it.
DRIVE = f"""
import sys, time
sys.path.insert(0, {str(Path(__file__).parent)!r})
import soak
from pathlib import Path
from search.errors import ConfigurationError
soak.Driver.pause = 0.05
config = soak.study(Path(sys.argv[1]), int(sys.argv[2]), storage_copy=None, final={{"finalists": 0}})
print("ready", flush=True)
while not Path(sys.argv[3]).exists():
    time.sleep(0.001)
try:
    soak.drive(config)
except ConfigurationError as error:
    print(error, flush=True)
    sys.exit(2)
"""


def drivers(folder, *seeds):
    """So many drivers that start at the same instant; their exit codes, what they said, their process numbers."""
    gate = folder / "gate"
    command = [sys.executable, "-c", DRIVE, str(folder)]
    started = [subprocess.Popen([*command, str(seed), str(gate)], stdout=subprocess.PIPE, text=True) for seed in seeds]
    for each in started:
        assert each.stdout.readline() == "ready\n"
    gate.touch()
    said = [each.communicate(timeout=120)[0] for each in started]
    return [each.returncode for each in started], said, [each.pid for each in started]


def test_f16_of_two_drivers_that_resume_one_study_exactly_one_goes_on(tmp_path):
    codes, said, processes = drivers(tmp_path, 3, 3)
    assert sorted(codes) == [0, 2]
    winner = processes[codes.index(0)]
    assert f"it: one driver at a time may work on a study, but process {winner} on " in said[codes.index(2)]
    trials = read_history(tmp_path / "it" / "study.db").search_trials()
    assert [trial.number for trial in trials] == list(range(12))
    assert {trial.attempts for trial in trials} == {1}


def test_f17_two_new_runs_of_one_name_in_one_second_never_mix(tmp_path):
    codes, said, _ = drivers(tmp_path, 1, 2)
    assert sorted(codes) == [0, 2]
    assert "one driver at a time" in said[codes.index(2)]
    seed = [1, 2][codes.index(0)]
    assert f"seed: {seed}\n" in (tmp_path / "it" / "study.yaml").read_text()
    assert len(read_history(tmp_path / "it" / "study.db").search_trials()) == 12


def holder_file(path, **changes):
    path.parent.mkdir(exist_ok=True)
    beside = path.with_suffix(".beside")
    beside.write_text(json.dumps(asdict(replace(Holder.here(), **changes))))
    beside.replace(path)


@pytest.fixture
def path(memory):
    return memory / "it" / "study.lock"


def wait_for_a_beat(path):
    before = json.loads(path.read_text())["beat"]
    deadline = time.monotonic() + 30
    while json.loads(path.read_text())["beat"] == before:
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture
def dead():
    """Number and birth of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    born = lock._born(process.pid)
    process.communicate(b"\n")
    return {"process": process.pid, "born": born}


@pytest.fixture(params=["locks", "no locks"])
def locks(request, monkeypatch):
    """A file system with working locks, and one that says yes to all."""
    if request.param == "no locks":
        monkeypatch.setattr(fcntl, "flock", lambda *_: None)
    monkeypatch.setattr(lock, "BEAT_SECONDS", 0.05)
    monkeypatch.setattr(lock, "PATIENCE_SECONDS", 2.0)
    monkeypatch.setattr(lock, "_SETTLE_SECONDS", 0.05)
    return request.param == "locks"


def test_f32_the_lock_of_a_dead_process_is_taken_over_at_once(path, dead, locks, monkeypatch):
    holder_file(path, **dead)
    monkeypatch.setattr(lock, "PATIENCE_SECONDS", 1e6)
    with exclusive(path):
        assert json.loads(path.read_text())["process"] == os.getpid()
    assert not path.exists()


def test_f32_a_process_number_that_is_used_again_is_not_mistaken(path, locks, monkeypatch):
    holder_file(path, born=1)  # this very process, but an earlier one had its number
    monkeypatch.setattr(lock, "PATIENCE_SECONDS", 1e6)
    with exclusive(path):
        assert json.loads(path.read_text())["born"] > 1


def test_f32_a_live_holder_is_respected_and_named(path, locks):
    with exclusive(path):
        wait_for_a_beat(path)
        with (
            pytest.raises(ConfigurationError, match=rf"it: one driver .* but process {os.getpid()} on"),
            exclusive(path),
        ):
            pass
        assert driver_at_work(path) == f"process {os.getpid()} on {os.uname().nodename}"
    assert driver_at_work(path) is None


def test_f32_a_holder_on_another_machine_lives_while_its_heart_beats(path, locks):
    holder_file(path, host="elsewhere", boot="another", process=77)
    beating = subprocess.Popen([sys.executable, "-c", BEAT, str(path)])
    try:
        wait_for_a_beat(path)
        with pytest.raises(ConfigurationError, match="but process 77 on elsewhere does"), exclusive(path):
            pass
        assert driver_at_work(path) == "process 77 on elsewhere"
    finally:
        beating.send_signal(signal.SIGKILL)
        beating.wait()
    with exclusive(path):  # after a while without a beat
        assert json.loads(path.read_text())["host"] == os.uname().nodename


BEAT = """
import json, sys, time
from pathlib import Path
path, beat = Path(sys.argv[1]), 0
said = json.loads(path.read_text())
while True:
    beat += 1
    new = path.with_suffix(".new")
    new.write_text(json.dumps(said | {"beat": beat}))
    new.replace(path)
    time.sleep(0.02)
"""


def test_f32_a_driver_whose_lock_another_machine_took_over_ends_and_leaves_it_alone(path, locks, monkeypatch):
    ended = []
    monkeypatch.setattr(lock, "end_at_once", ended.append)
    with exclusive(path) as check_alone:
        check_alone()
        holder_file(path, host="elsewhere", boot="another", process=77, token="theirs")
        with pytest.raises(ConfigurationError, match="but process 77 on elsewhere does"):
            check_alone()
        deadline = time.monotonic() + 30
        while not ended:
            assert time.monotonic() < deadline
            time.sleep(0.01)
    assert "but process 77 on elsewhere does" in ended[0]
    assert json.loads(path.read_text())["token"] == "theirs"


def test_f32_of_two_machines_that_start_at_once_and_see_only_their_own_locks_one_goes_on(memory):
    """Each believes in its kernel's locks, and has read the file before the other signed."""
    path = memory / "it" / "study.lock"
    starts = [
        subprocess.Popen(
            [sys.executable, "-c", ALONE, str(path), boot], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for boot in ("one", "other")
    ]
    try:
        for each in starts:
            assert each.stdout.readline() == "looked\n"
        for each in starts:
            each.stdin.write("\n")
            each.stdin.flush()
        deadline = time.monotonic() + 60
        while all(each.poll() is None for each in starts):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        time.sleep(3.0)  # six beats
        assert sorted(str(each.poll()) for each in starts) == ["1", "None"]
        [left] = [each for each in starts if each.poll() is None]
        assert left.pid == json.loads(path.read_text())["process"]
    finally:
        for each in starts:
            each.kill()
            each.communicate()


ALONE = """
import fcntl, sys, time
from pathlib import Path
from search import lock

fcntl.flock = lambda *_: None  # never in another machine's way
lock.locks_work = lambda folder: True
lock.boot_id = lambda: sys.argv[2]
lock.BEAT_SECONDS = 0.5
lives = lock._lives

def looked(*arguments, **options):
    answer = lives(*arguments, **options)
    print("looked", flush=True)
    input()
    return answer

lock._lives = looked
with lock.exclusive(Path(sys.argv[1])):
    time.sleep(100)
"""


def test_f32_an_earlier_boot_of_this_machine_holds_nothing_once_no_heart_beats(path, locks):
    holder_file(path, boot="an earlier one")
    with exclusive(path):
        assert json.loads(path.read_text())["boot"] == lock.boot_id()


def test_f33_locks_that_say_yes_to_all_are_found_out(tmp_path, monkeypatch):
    assert disk.locks_work(tmp_path)
    monkeypatch.setattr(fcntl, "flock", lambda *_: None)
    assert not disk.locks_work(tmp_path)
    monkeypatch.undo()

    def refuse(*_):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    assert not disk.locks_work(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_f33_locks_that_only_what_may_be_written_can_have_are_no_broken_ones(tmp_path, monkeypatch):
    """As flock(2) says of NFS."""
    real = fcntl.flock

    def strict(stream, operation):
        if operation & fcntl.LOCK_EX and fcntl.fcntl(stream, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            raise OSError(9, "Bad file descriptor")
        real(stream, operation)

    monkeypatch.setattr(fcntl, "flock", strict)
    assert disk.locks_work(tmp_path)


def test_f33_a_rename_that_copies_is_refused_before_any_work(tmp_path, monkeypatch):
    def copy(source, target):
        shutil.copyfile(source, target)  # empties the target first
        Path(source).unlink()

    monkeypatch.setattr(os, "replace", copy)
    problem = "must be on a file system where a renamed file takes its new name at once"
    with pytest.raises(ConfigurationError, match=problem), only_driver(StudyPaths(tmp_path / "it")):
        pass
    assert list(tmp_path.iterdir()) == []


def test_f33_a_session_says_that_locks_do_not_work_and_goes_on(memory, monkeypatch):
    said = []
    monkeypatch.setattr(fcntl, "flock", lambda *_: None)
    monkeypatch.setattr(lock, "_SETTLE_SECONDS", 0.01)
    view = View()
    view.say = said.append
    with Session(soak.study(memory, 1, storage_copy=None), soak.Pretender(), view):
        pass
    assert said == [f"{memory / 'it'}: file locks do not work there; heartbeats keep other drivers away"]


def test_f33_without_locks_two_ledgers_still_cannot_mix_their_events(tmp_path, monkeypatch):
    monkeypatch.setattr(fcntl, "flock", lambda *_: None)
    with Ledger(tmp_path / "study.db") as first, Ledger(tmp_path / "study.db") as second:
        second.append(Asked(0, {"x": 2}, 0))
        with pytest.raises(LedgerError, match="every event must be durable"):
            first.append(Asked(0, {"x": 1}, 0))
        second.append(Asked(1, {"x": 3}, 0))
    assert len(read_journal(tmp_path / "study.events.jsonl").entries) == 2
    assert [trial.parameters for trial in read_history(tmp_path / "study.db").search_trials()] == [{"x": 2}, {"x": 3}]

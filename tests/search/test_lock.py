import json
import os
import signal
import socket
import subprocess
import sys

import pytest

from search.errors import ConfigurationError
from search.lock import boot_id, driver_at_work, exclusive

HOLD = """
import sys, time
from pathlib import Path
from search.lock import exclusive
with exclusive(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(100)
"""


@pytest.fixture
def holder(tmp_path):
    """A process that holds the lock `study.lock` of the study `it`."""
    (tmp_path / "it").mkdir()
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "it" / "study.lock")], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_a_second_driver_is_told_who_works_on_the_study(tmp_path, holder):
    with pytest.raises(ConfigurationError) as caught, exclusive(tmp_path / "it" / "study.lock"):
        pass
    [problem] = caught.value.problems
    assert problem.startswith("it: one driver at a time may work on a study, but ")
    assert f"process {holder.pid} on {socket.gethostname()} does" in problem


def test_being_refused_leaves_the_holders_lock_and_name_alone(tmp_path, holder):
    path = tmp_path / "it" / "study.lock"
    for _ in range(2):
        with pytest.raises(ConfigurationError, match=f"process {holder.pid} "), exclusive(path):
            pass
    assert json.loads(path.read_text())["process"] == holder.pid


def test_who_is_at_work_can_be_asked_without_getting_in_the_way(tmp_path, holder):
    path = tmp_path / "it" / "study.lock"
    assert driver_at_work(path) == f"process {holder.pid} on {socket.gethostname()}"
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert driver_at_work(path) is None
    assert driver_at_work(tmp_path / "other.lock") is None
    with exclusive(path):
        pass


def test_a_lock_whose_holder_was_killed_is_free(tmp_path, holder):
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    path = tmp_path / "it" / "study.lock"
    with exclusive(path):
        said = json.loads(path.read_text())
        assert (said["process"], said["host"], said["boot"]) == (os.getpid(), socket.gethostname(), boot_id())


def test_a_lock_is_free_after_its_block_even_when_that_failed(tmp_path):
    path = tmp_path / "study.lock"
    with pytest.raises(RuntimeError, match="inside"), exclusive(path):
        raise RuntimeError("inside")
    with exclusive(path), pytest.raises(ConfigurationError, match=f"process {os.getpid()} on"), exclusive(path):
        pass


def test_a_lock_file_that_says_nothing_readable_still_locks(tmp_path):
    path = tmp_path / "study.lock"
    with exclusive(path):
        path.write_text("{half")
        with pytest.raises(ConfigurationError, match="another process"), exclusive(path):
            pass


def test_a_child_that_outlives_its_parent_does_not_keep_the_lock(tmp_path):
    path = tmp_path / "study.lock"
    with exclusive(path):
        child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        with exclusive(path):
            assert child.poll() is None
    finally:
        child.communicate(b"\n")


def test_who_is_at_work_can_be_asked_where_nothing_may_be_written_and_locks_do_not_work(tmp_path, holder, monkeypatch):
    path = tmp_path / "it" / "study.lock"
    before = sorted(path.parent.iterdir())

    def none(stream, operation):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr("fcntl.flock", none)
    monkeypatch.setattr("search.lock.locks_work", None)  # which would write there
    assert driver_at_work(path) == f"process {holder.pid} on {socket.gethostname()}"
    assert sorted(path.parent.iterdir()) == before
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert driver_at_work(path) is None

"""clusters/slurm.sh, run as it is: its own bash, real Ray, a search that pretends; of Slurm two commands are made up.

Both "nodes" are this machine: the second Ray is started by a made-up `srun` that runs its command here.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from search.ledger import read_history
from search.paths import StudyPaths

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = ROOT / "clusters" / "slurm.sh"
PRETENDED = ROOT / "tests" / "fakes" / "pretended_study.py"
STUDY = {
    "name": "it",
    "storage": "runs",
    "space": {"x": {"type": "float", "low": 0.1, "high": 1.0}},
    "objective": {"metric": "v"},
    "pruner": {"name": "none"},
    "budget": {"trials": 6, "epochs": 4},
    "resources": {"cpus_per_trial": 1},
    "training": {"epoch_seconds": 0.5},
    "final": {"finalists": 0},
}
SCONTROL = """#!/bin/bash
case "$1" in
  show) echo first; seq 20000 ;;  # more than a pipe holds
  requeue) echo "$2" >> "$MADE_UP/requeued" ;;
esac
"""
SRUN = """#!/bin/bash
printf '%s\\n' "$@" > "$MADE_UP/srun"
while [[ $1 == --* ]]; do shift; done
SLURM_NODEID=1 exec "$@"
"""
THAWLINE = f"""#!{sys.executable}
import json, os, sys
command, study, option, address = sys.argv[1:]
assert (command, option) == ("search", "--address"), sys.argv
document = json.load(open(study))
document["resources"]["address"] = address
os.execv(sys.executable, [sys.executable, {str(PRETENDED)!r}, json.dumps(document)])
"""


@pytest.fixture
def folder():
    """Directly under /tmp, because pytest's folders are too long for Ray's sockets."""
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="t-", ignore_cleanup_errors=True) as made:
        yield Path(made)


class _Job:
    """A batch job: the script with what Slurm would give it."""

    number = str(10_000_000 + os.getpid())

    def __init__(self, folder):
        commands = folder / "commands"
        commands.mkdir(exist_ok=True)
        for name, text in {"scontrol": SCONTROL, "srun": SRUN, "thawline": THAWLINE}.items():
            (commands / name).write_text(text)
            (commands / name).chmod(0o755)
        (folder / "study.yaml").write_text(json.dumps(STUDY))
        self.folder = folder
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        self._process = subprocess.Popen(
            [SCRIPT, "study.yaml"],
            cwd=folder,
            env={
                **inherited,
                "HOME": str(folder),
                "PATH": f"{commands}:{Path(sys.executable).parent}:{os.environ['PATH']}",
                "MADE_UP": str(folder),
                "HEAD_ADDRESS": "127.0.0.1",
                "SLURM_JOB_ID": self.number,
                "SLURM_JOB_NODELIST": "[first-second]",
                "SLURM_NNODES": "2",
                "SLURM_CPUS_PER_TASK": "1",
            },
            stdout=(folder / "output").open("a"),
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def wait_until(self, holds, seconds=150):
        end = time.monotonic() + seconds
        while not holds():
            assert self._process.poll() is None, self.said()
            assert time.monotonic() < end, self.said()
            time.sleep(0.1)

    def signal(self, number):
        self._process.send_signal(number)

    def ended(self):
        return self._process.wait(timeout=150)

    def said(self):
        return (self.folder / "output").read_text()

    def trials(self):
        ledger = StudyPaths(self.folder / "runs" / "it").ledger
        return read_history(ledger).search_trials() if ledger.exists() else []

    def end(self):
        """Whatever a failed test has left of it."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGTERM)
            try:
                self._process.wait(60)
            except subprocess.TimeoutExpired:
                os.killpg(self._process.pid, signal.SIGKILL)


def _left():
    return sorted(str(path) for path in Path("/tmp").glob(f"thawline-{_Job.number}-*"))


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(420)
def test_a_job_near_its_time_limit_is_queued_again_and_goes_on_where_it_was(folder):
    job = _Job(folder)
    try:
        job.wait_until(lambda: sum(trial.status == "running" and bool(trial.epochs) for trial in job.trials()) == 2)
        [token] = folder.glob(f".thawline-job-{job.number}-*/token")
        assert token.stat().st_mode & 0o777 == 0o600
        commands = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
        assert token.read_text() not in commands
        assert [Path(path).stat().st_mode & 0o777 for path in _left()] == [0o700, 0o700]
        job.signal(signal.SIGUSR1)
        assert job.ended() == 128 + signal.SIGTERM
    finally:
        job.end()
    assert "2 of 2 nodes are in the cluster" in job.said()
    assert (folder / "requeued").read_text().split() == [job.number]
    assert _left() == []
    assert list(folder.glob(".thawline-job-*")) == []

    job = _Job(folder)
    try:
        assert job.ended() == 0, job.said()
    finally:
        job.end()
    assert [[epoch.epoch for epoch in trial.epochs] for trial in job.trials()] == [[1, 2, 3, 4]] * 6
    assert len((folder / "requeued").read_text().split()) == 1
    assert _left() == []


@pytest.mark.ray
def test_the_other_nodes_are_asked_for_within_the_job_and_a_job_stopped_early_leaves_nothing(folder):
    job = _Job(folder)
    try:
        job.wait_until((folder / "srun").exists)
        asked = (folder / "srun").read_text().split("\n")
        job.signal(signal.SIGTERM)
        job.ended()
    finally:
        job.end()
    assert _left() == []
    assert list(folder.glob(".thawline-job-*")) == []
    assert {"--nodes=1", "--ntasks=1", "--ntasks-per-node=1", "--exclude=first", "--cpus-per-task=1"} <= set(asked)


def test_without_a_study_file_nothing_is_started(folder):
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder)}
    finished = subprocess.run([SCRIPT], env=environment, cwd=folder, capture_output=True, text=True, check=False)
    assert finished.returncode == 2
    assert "A study file must be given" in finished.stderr


def test_the_script_is_sound_bash():
    subprocess.run(["bash", "-n", SCRIPT], check=True)
    if shutil.which("shellcheck") is None:
        pytest.skip("shellcheck is not here")
    finished = subprocess.run(["shellcheck", "--severity=warning", SCRIPT], capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stdout


def test_slurm_is_told_to_queue_the_job_again():
    options = [
        line.split()[1] for line in SCRIPT.read_text(encoding="utf-8").splitlines() if line.startswith("#SBATCH")
    ]
    assert {"--requeue", "--signal=B:USR1@120", "--open-mode=append"} <= set(options)

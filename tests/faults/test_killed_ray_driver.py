"""F09, F27: a driver with real Ray, killed in mid-study; what Ray keeps for itself is never needed."""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from search.ledger import read_history
from search.paths import StudyPaths

DRIVER = Path(__file__).parents[1] / "fakes" / "pretended_study.py"
STUDY = {
    "name": "it",
    "space": {"x": {"type": "float", "low": 0.1, "high": 1.0}},
    "objective": {"metric": "v"},
    "pruner": {"name": "none"},
    "sampler": {"startup_trials": 2},
    "budget": {"trials": 6, "epochs": 2},
    "resources": {"concurrency": 1, "cpus_per_trial": 0.5},
    "training": {"epoch_seconds": 0.1},
    "final": {"finalists": 0},
}


def drive(folder, name, kill_after=None):
    """A driver; killed once so many trials have ended. Its exit code."""
    paths = StudyPaths(folder / name)
    document = {**STUDY, "name": name, "storage": str(folder)}
    process = subprocess.Popen(
        [sys.executable, str(DRIVER), json.dumps(document)],
        env={**os.environ, "TMPDIR": str(folder)},
        stderr=subprocess.PIPE,
        text=True,
    )
    while kill_after is not None and process.poll() is None and ended(paths) < kill_after:
        time.sleep(0.02)
    if kill_after is not None:
        process.kill()
    said = process.communicate(timeout=120)[1]
    return process.returncode, said


def ended(paths):
    if not (paths.ledger.exists() and paths.journal.exists()):
        return 0
    return sum(trial.ended for trial in read_history(paths.ledger).search_trials())


def outline(folder, name):
    trials = read_history(StudyPaths(folder / name).ledger).search_trials()
    return [(t.key, t.parameters, t.seed, t.status, [(e.epoch, e.metrics) for e in t.epochs]) for t in trials]


@pytest.mark.ray
@pytest.mark.timeout(600)
def test_f09_f27_a_ray_driver_that_was_killed_ends_as_an_uninterrupted_one_whatever_ray_left():
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="t-", ignore_cleanup_errors=True) as made:
        folder = Path(made)
        assert drive(folder, "whole")[0] == 0
        assert drive(folder, "it", kill_after=2)[0] == -9
        (folder / "it" / "ray").mkdir()
        # An empty snapshot and an unreadable searcher, such as stock Tune leaves on a full disk.
        for name in ("tuner.pkl", "searcher-state-1.pkl", "experiment_state-1.json"):
            (folder / "it" / "ray" / name).write_bytes(b"")
        assert not list((folder / "whole").rglob("*.pkl"))
        code, said = drive(folder, "it")
        assert code == 0, said
        assert outline(folder, "it") == outline(folder, "whole")

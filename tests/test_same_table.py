"""The promise of the ledger on real networks: the same seed on one worker gives the same table, killed in between or
not.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from analysis import read_trials
from search.ledger import read_history
from trainable.synthetic import draw_study

pytestmark = [pytest.mark.slow, pytest.mark.ray, pytest.mark.timeout(600)]

STUDY = """
seed: 4
data: {path: images, groups: groups.csv, image_size: 32}
model: {weights: random}
training: {dropout: 0.1, plateau_patience: 1}
space:
  learning_rate: {type: float, low: 1.0e-4, high: 1.0e-2, log: true}
  augmentation_strength: {type: float, low: 0.0, high: 1.0, step: 0.5}
  freeze_depth: {type: int, low: 3, high: 5}
sampler: {name: tpe, startup_trials: 2}
budget: {trials: 3, epochs: 2}
resources: {concurrency: 1}
"""
CLOCKS = ("_seconds", "worker", "attempts")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    draw_study(folder, images_per_class=24, image_size=32, seed=3)
    (folder / "study.yaml").write_text(STUDY)
    return folder


def start(folder: Path, name: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "search.cli", "search", "study.yaml", "--name", name]
    return subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True)


def finish(folder: Path, name: str) -> None:
    driver = start(folder, name)
    _, said = driver.communicate(timeout=300)
    assert driver.returncode == 0, said


def table(folder: Path, name: str):
    trials = read_trials(folder / "runs" / name)
    return trials.drop(columns=[column for column in trials if column.endswith(CLOCKS)])


def epochs_in(ledger: Path) -> int:
    if not ledger.exists():
        return 0
    return sum(len(trial.epochs) for trial in read_history(ledger).search_trials())


@pytest.fixture(scope="module")
def uninterrupted(folder):
    finish(folder, "whole")
    return table(folder, "whole")


def test_the_same_seed_on_one_worker_gives_the_same_table_though_killed(folder, uninterrupted):
    ledger = folder / "runs" / "killed" / "study.db"
    driver = start(folder, "killed")
    while driver.poll() is None and epochs_in(ledger) < 2:
        time.sleep(0.02)
    os.kill(driver.pid, signal.SIGKILL)
    driver.communicate(timeout=60)
    finish(folder, "killed")
    assert len(uninterrupted) == 3
    assert table(folder, "killed").equals(uninterrupted)


def test_a_study_that_is_extended_keeps_its_trials_and_adds_those_that_are_missing(folder, uninterrupted):
    driver = subprocess.run(
        [sys.executable, "-m", "search.cli", "search", "whole", "--trials", "4"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert driver.returncode == 0, driver.stderr
    extended = table(folder, "whole")
    assert list(extended["number"]) == [0, 1, 2, 3]
    assert extended.head(3).equals(uninterrupted)

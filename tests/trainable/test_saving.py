import json
from dataclasses import dataclass

import numpy as np
import pytest

from trainable.checkpoint import Checkpoint, Checkpoints
from trainable.saving import Saving


@dataclass
class Result:
    epoch: int
    last: bool
    seconds: dict


class Losses:
    """A training that has these losses, one an epoch."""

    def __init__(self, losses, seconds=1.0):
        self._losses, self._seconds, self.epoch = losses, seconds, 0

    @property
    def best_epoch(self):
        seen = self._losses[: self.epoch]
        return 1 + seen.index(min(seen))

    def checkpoint(self):
        return Checkpoint(self.epoch, {"epoch": np.array(self.epoch)}, {})

    def next(self):
        self.epoch += 1
        return Result(self.epoch, self.epoch == len(self._losses), {"train": self._seconds, "checkpoint": 99.0})


def saved(folder):
    return sorted(int(path.name) for path in folder.iterdir()) if folder.is_dir() else []


@pytest.mark.parametrize(
    ("losses", "keeps_best", "every", "pauses", "after_each_epoch"),
    [
        ([3, 2, 1], False, 1, (), [[1], [1, 2], [1, 2]]),
        ([3, 2, 1], True, 1, (), [[1], [1, 2], [2, 3]]),
        ([3, 1, 2, 2, 2], True, 1, (), [[1], [1, 2], [2, 3], [2, 3, 4], [2, 3, 4]]),
        ([6, 5, 4, 3, 2], False, 3, (), [[], [], [3], [3], [3]]),
        ([6, 5, 4, 3, 2], False, 3, (1, 2), [[1], [1, 2], [2, 3], [2, 3], [2, 3]]),
        ([6, 5, 7, 3, 8], True, 3, (1,), [[1], [1], [2, 3], [2, 3], [3, 4]]),
        ([1, 5, 7, 8, 9], True, 2, (), [[], [1, 2], [1, 2], [1, 2, 4], [1, 2, 4]]),
    ],
)
def test_what_is_due_and_the_best_epoch_are_on_disk(tmp_path, losses, keeps_best, every, pauses, after_each_epoch):
    training = Losses(losses)
    saving = Saving(Checkpoints(tmp_path / "it", "owner"), every, 0.0, pauses, keeps_best)
    found = []
    for _ in losses:
        saving.after(training, training.next())
        found.append(saved(tmp_path / "it"))
    assert found == after_each_epoch


@pytest.mark.parametrize(
    ("every", "pauses", "after_each_epoch"),
    [
        (1, (), [[], [], [3], [3], [3], [3, 6], [3, 6]]),
        (2, (), [[], [], [], [4], [4], [4], [4]]),
        (1, (2,), [[], [2], [2], [2], [2, 5], [2, 5], [2, 5]]),
    ],
)
def test_a_checkpoint_waits_for_so_many_seconds_of_training_since_the_one_before(
    tmp_path, every, pauses, after_each_epoch
):
    training = Losses([9, 8, 7, 6, 5, 4, 3], seconds=25.0)
    saving = Saving(Checkpoints(tmp_path / "it", "owner"), every, 60.0, pauses)
    found = []
    for _ in range(7):
        saving.after(training, training.next())
        found.append(saved(tmp_path / "it"))
    assert found == after_each_epoch


def test_the_state_that_was_held_is_that_of_the_best_epoch(tmp_path):
    training = Losses([5, 1, 2, 3])
    checkpoints = Checkpoints(tmp_path, "owner")
    saving = Saving(checkpoints, every=10, keeps_best=True)
    for _ in range(4):
        saving.after(training, training.next())
    assert saved(tmp_path) == [2]
    assert checkpoints.load().arrays["epoch"] == 2
    assert json.loads((tmp_path / "000002" / "manifest.json").read_text())["owner"] == "owner"


def test_the_disk_is_waited_for_once_a_minute_of_training_and_what_it_has_stays(tmp_path, monkeypatch):
    flushed = []
    save = Checkpoints.save

    def recorded(checkpoints, checkpoint, kept, durable):
        flushed.append((checkpoint.epoch, durable))
        return save(checkpoints, checkpoint, kept, durable)

    monkeypatch.setattr(Checkpoints, "save", recorded)
    training = Losses([9, 8, 7, 6, 5, 4, 3], seconds=25.0)
    saving = Saving(Checkpoints(tmp_path, "owner"), keeps_best=True)
    for _ in range(6):
        saving.after(training, training.next())
    assert flushed == [(1, False), (2, False), (3, True), (4, False), (5, False), (6, True)]
    saving.after(training, training.next())
    assert flushed[-1] == (7, True)
    assert saved(tmp_path) == [6, 7]


def test_a_checkpoint_that_the_disk_has_stays_until_the_disk_has_a_newer_one(tmp_path):
    training = Losses([9, 8, 7, 6, 5, 4, 3, 2], seconds=25.0)
    saving = Saving(Checkpoints(tmp_path, "owner"))
    found = []
    for _ in range(7):
        saving.after(training, training.next())
        found.append(saved(tmp_path))
    assert found == [[1], [1, 2], [2, 3], [3, 4], [3, 4, 5], [3, 5, 6], [6, 7]]


def test_a_checkpoint_that_could_not_be_written_is_no_error_and_not_taken_for_flushed(tmp_path, caplog):
    (tmp_path / "file").write_text("")
    training = Losses([2, 1], seconds=99.0)
    saving = Saving(Checkpoints(tmp_path / "file", "owner"))
    saving.after(training, training.next())
    assert "no checkpoint after epoch 1" in caplog.text
    assert saving.flushed is None


def test_a_trial_that_waits_is_saved_unless_it_was_already(tmp_path):
    training = Losses([3, 2, 5, 1])
    saving = Saving(Checkpoints(tmp_path / "late", "owner"), every=9, keeps_best=True)
    for _ in range(3):
        saving.after(training, training.next())
    assert saved(tmp_path / "late") == []
    saving.pause(training)
    assert saved(tmp_path / "late") == [2, 3]
    training = Losses([3, 2])
    saving = Saving(Checkpoints(tmp_path / "due", "owner"), pauses=(1,))
    saving.after(training, training.next())
    before = (tmp_path / "due" / "000001").stat().st_ino
    saving.pause(training)
    assert (tmp_path / "due" / "000001").stat().st_ino == before

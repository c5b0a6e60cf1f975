"""What a checkpoint is and which are kept; how it stands up to faults is in tests/faults/test_checkpoints.py."""

import json

import numpy as np
import pytest

from trainable.checkpoint import Checkpoint, Checkpoints


def checkpoint(epoch):
    arrays = {
        "backbone/conv5/kernel": np.arange(12, dtype=np.float32).reshape(3, 4) * epoch,
        "head_optimizer/0": np.array(epoch, np.int64),
    }
    return Checkpoint(epoch, arrays, {"learning_rate": 0.1 / epoch, "history": [{"epoch": epoch, "auc": float("nan")}]})


def assert_same(found, expected):
    assert found is not None
    assert found.epoch == expected.epoch
    assert found.arrays.keys() == expected.arrays.keys()
    for name, array in expected.arrays.items():
        assert found.arrays[name].dtype == array.dtype
        assert np.array_equal(found.arrays[name], array)
    assert json.dumps(found.values) == json.dumps(expected.values)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_checkpoint_comes_back_as_it_was(tmp_path):
    checkpoints = Checkpoints(tmp_path / "new" / "folder", "it")
    written = checkpoints.save(checkpoint(3))
    assert_same(checkpoints.load(), checkpoint(3))
    stored = tmp_path / "new" / "folder" / "000003"
    assert names(stored) == ["arrays.npz", "manifest.json", "values.json"]
    assert written == sum((stored / name).stat().st_size for name in ("arrays.npz", "values.json"))


def test_where_nothing_was_saved_nothing_is_found(tmp_path):
    assert Checkpoints(tmp_path / "missing", "it").load() is None
    assert Checkpoints(tmp_path, "it").load() is None
    (tmp_path / "000004").write_text("a file, not a folder")
    (tmp_path / "notes").mkdir()
    assert Checkpoints(tmp_path, "it").load() is None


@pytest.mark.parametrize(
    ("best", "kept"),
    [
        ({}, ["000009", "000010"]),
        ({1: 1, 2: 2, 9: 2, 10: 2}, ["000002", "000009", "000010"]),
        ({1: 1, 2: 1, 9: 1, 10: 10}, ["000009", "000010"]),
        ({1: 1, 2: 1, 9: 9, 10: 9}, ["000009", "000010"]),
    ],
)
def test_the_two_newest_and_the_best_are_kept_and_the_newest_is_found(tmp_path, best, kept):
    checkpoints = Checkpoints(tmp_path, "it")
    for epoch in (1, 2, 9, 10):
        checkpoints.save(checkpoint(epoch), [best[epoch]] if epoch in best else ())
        assert_same(checkpoints.load(), checkpoint(epoch))
    assert names(tmp_path) == kept


def test_an_epoch_done_again_replaces_its_checkpoint(tmp_path):
    checkpoints, again = Checkpoints(tmp_path, "it"), Checkpoint(2, {"other": np.zeros(2)}, {})
    for each in (checkpoint(1), checkpoint(2), again):
        checkpoints.save(each)
    assert_same(checkpoints.load(), again)
    assert names(tmp_path) == ["000001", "000002"]


def test_after_going_on_from_an_older_one_the_later_ones_give_way_and_the_new_one_stays(tmp_path):
    checkpoints = Checkpoints(tmp_path, "it")
    checkpoints.save(checkpoint(20))
    for epoch in (31, 32):
        checkpoints.save(checkpoint(epoch), kept=[20])
        (tmp_path / f"{epoch:06d}" / "arrays.npz").write_bytes(b"torn by a power cut")
    assert checkpoints.load().epoch == 20
    checkpoints.save(checkpoint(21))
    assert names(tmp_path) == ["000020", "000021"]
    assert checkpoints.load().epoch == 21

import hashlib
import json
import os
import pickle
import random
import shutil
import subprocess
import sys

import numpy as np
import pytest

from trainable.checkpoint import Checkpoint, load_checkpoint, save_checkpoint


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


@pytest.fixture
def two(tmp_path):
    """A folder with the checkpoints of epochs 1 and 2."""
    folder = tmp_path / "checkpoint"
    for epoch in (1, 2):
        save_checkpoint(folder, checkpoint(epoch))
    return folder


def test_a_checkpoint_comes_back_as_it_was(tmp_path):
    written = save_checkpoint(tmp_path / "new" / "folder", checkpoint(3))
    assert_same(load_checkpoint(tmp_path / "new" / "folder"), checkpoint(3))
    stored = tmp_path / "new" / "folder" / "000003"
    assert written == sum((stored / name).stat().st_size for name in ("arrays.npz", "values.json"))


def test_where_nothing_was_saved_nothing_is_found(tmp_path):
    assert load_checkpoint(tmp_path / "missing") is None
    assert load_checkpoint(tmp_path) is None
    (tmp_path / "000004").write_text("a file, not a folder")
    (tmp_path / "notes").mkdir()
    assert load_checkpoint(tmp_path) is None


def test_the_two_newest_are_kept_and_the_newest_is_found(tmp_path):
    for epoch in (1, 2, 9, 10):
        save_checkpoint(tmp_path, checkpoint(epoch))
        assert_same(load_checkpoint(tmp_path), checkpoint(epoch))
    assert names(tmp_path) == ["000009", "000010"]


def test_an_epoch_done_again_replaces_its_checkpoint(two):
    again = Checkpoint(2, {"other": np.zeros(2)}, {})
    save_checkpoint(two, again)
    assert_same(load_checkpoint(two), again)
    assert names(two) == ["000001", "000002"]


def test_a_bit_flipped_anywhere_is_noticed_and_the_checkpoint_before_is_used(two):
    generator = random.Random(1)
    files = sorted((two / "000002").iterdir())
    assert [file.name for file in files] == ["arrays.npz", "manifest.json", "values.json"]
    for number in range(100):
        file = files[number % 3]
        whole = file.read_bytes()
        damaged = bytearray(whole)
        damaged[generator.randrange(len(whole))] ^= 1 << generator.randrange(8)
        file.write_bytes(damaged)
        assert_same(load_checkpoint(two), checkpoint(1))
        file.write_bytes(whole)
    assert_same(load_checkpoint(two), checkpoint(2))


def test_a_checkpoint_cut_short_or_with_a_file_missing_is_passed_over(two):
    for file in sorted((two / "000002").iterdir()):
        whole = file.read_bytes()
        for length in {0, 1, len(whole) // 2, len(whole) - 1}:
            file.write_bytes(whole[:length])
            assert_same(load_checkpoint(two), checkpoint(1))
        file.unlink()
        assert_same(load_checkpoint(two), checkpoint(1))
        file.write_bytes(whole)


def test_files_of_another_attempt_do_not_pass_for_this_one(two):
    shutil.copy(two / "000001" / "values.json", two / "000002" / "values.json")
    assert_same(load_checkpoint(two), checkpoint(1))


def test_when_none_is_whole_none_is_found(two):
    for epoch in ("000001", "000002"):
        (two / epoch / "arrays.npz").write_bytes(b"")
    assert load_checkpoint(two) is None


KILLED_WHILE_SAVING = """
import os, signal, sys
from pathlib import Path
import numpy as np
from trainable.checkpoint import Checkpoint, save_checkpoint

class Deadly:
    def __array__(self, *_, **__):
        os.kill(os.getpid(), signal.SIGKILL)

save_checkpoint(Path(sys.argv[1]), Checkpoint(3, {"first": np.ones(1000), "second": Deadly()}, {}))
"""


def test_a_process_killed_while_saving_leaves_what_was_there_and_the_next_save_cleans_up(two):
    killed = subprocess.run([sys.executable, "-c", KILLED_WHILE_SAVING, str(two)], timeout=60, check=False)
    assert killed.returncode == -9
    left = set(names(two)) - {"000001", "000002"}
    assert len(left) == 1
    assert left.pop().endswith(".tmp")
    assert_same(load_checkpoint(two), checkpoint(2))
    save_checkpoint(two, checkpoint(3))
    assert names(two) == ["000002", "000003"]


def test_a_save_that_fails_leaves_what_was_there(two):
    with pytest.raises(TypeError):
        save_checkpoint(two, Checkpoint(3, {"a": np.ones(3)}, {"learning_rate": object()}))
    assert names(two) == ["000001", "000002"]
    assert_same(load_checkpoint(two), checkpoint(2))


def test_a_place_that_cannot_be_written_is_an_os_error(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OSError, match="file"):
        save_checkpoint(tmp_path / "file" / "checkpoint", checkpoint(1))


class Planted:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_code_planted_in_an_array_is_never_run(two, tmp_path):
    planted = two / "000002" / "arrays.npz"
    trap = np.empty(1, object)
    trap[0] = Planted(tmp_path / "was run")
    with planted.open("wb") as stream:
        np.savez(stream, trap=trap)
    with np.load(planted, allow_pickle=True) as stored:
        assert stored["trap"].shape == (1,)
    assert (tmp_path / "was run").exists()  # so the trap works
    (tmp_path / "was run").rmdir()
    content = planted.read_bytes()
    manifest = two / "000002" / "manifest.json"
    described = json.loads(manifest.read_text())
    described["arrays.npz"] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    manifest.write_text(json.dumps(described))
    assert_same(load_checkpoint(two), checkpoint(1))
    planted.write_bytes(pickle.dumps(Planted(tmp_path / "was run")))
    content = planted.read_bytes()
    described["arrays.npz"] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    manifest.write_text(json.dumps(described))
    assert_same(load_checkpoint(two), checkpoint(1))
    assert not (tmp_path / "was run").exists()

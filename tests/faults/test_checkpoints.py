"""Checkpoints are whole or absent, whatever happens to them."""

import hashlib
import io
import json
import logging
import os
import pickle
import random
import shutil
import subprocess
import sys

import numpy as np
import pytest

from trainable.checkpoint import Checkpoint, Checkpoints


def checkpoint(epoch):
    arrays = {"head/0": np.arange(600, dtype=np.float32) * epoch, "head_optimizer/0": np.array(epoch, np.int64)}
    return Checkpoint(epoch, arrays, {"learning_rate": 0.1 / epoch, "history": [{"epoch": epoch}]})


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def assert_found(checkpoints, epoch):
    """The newest whole checkpoint is that of this epoch, with the numbers that were saved."""
    found = checkpoints.load()
    assert found.epoch == epoch
    for name, array in checkpoint(epoch).arrays.items():
        assert np.array_equal(found.arrays[name], array)
    assert found.values == checkpoint(epoch).values


@pytest.fixture
def two(tmp_path):
    """The checkpoints of epochs 1 and 2."""
    checkpoints = Checkpoints(tmp_path / "checkpoint", "it")
    for epoch in (1, 2):
        checkpoints.save(checkpoint(epoch))
    return checkpoints


@pytest.fixture
def told():
    """What is written into a trial's log, a text."""
    logger, stream = logging.getLogger("thawline.trial"), io.StringIO()
    handler = logging.StreamHandler(stream)
    logger.addHandler(handler)
    yield stream.getvalue
    logger.removeHandler(handler)


KILLED_WHILE_SAVING = """
import os, signal, sys
from pathlib import Path
import numpy as np
from trainable.checkpoint import Checkpoint, Checkpoints

class Deadly:
    def __array__(self, *_, **__):
        os.kill(os.getpid(), signal.SIGKILL)

when, arrays = sys.argv[2], {"first": np.ones(1000)}
if when == "write":
    arrays["second"] = Deadly()
else:
    setattr(os, when, lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL))
Checkpoints(Path(sys.argv[1]), "it").save(Checkpoint(3, arrays, {}))
"""


@pytest.mark.parametrize("when", ["write", "fsync", "rename"])
def test_f02_a_process_killed_while_saving_leaves_what_was_there_and_the_next_save_cleans_up(two, when):
    arguments = [sys.executable, "-c", KILLED_WHILE_SAVING, str(two.folder), when]
    killed = subprocess.run(arguments, timeout=120, check=False, capture_output=True)
    assert killed.returncode == -9, killed.stderr
    [left] = set(names(two.folder)) - {"000001", "000002"}
    assert left.endswith(".tmp")
    assert_found(two, 2)
    two.save(checkpoint(3))
    assert names(two.folder) == ["000002", "000003"]


def test_f22_a_save_that_fails_leaves_what_was_there(two):
    with pytest.raises(TypeError):
        two.save(Checkpoint(3, {"a": np.ones(3)}, {"learning_rate": object()}))
    assert names(two.folder) == ["000001", "000002"]
    assert_found(two, 2)


def test_f22_a_place_that_cannot_be_written_is_an_os_error(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OSError, match="file"):
        Checkpoints(tmp_path / "file" / "checkpoint", "it").save(checkpoint(1))


def test_f28_a_checkpoint_cut_short_or_with_a_file_missing_is_passed_over(two, told):
    for file in sorted((two.folder / "000002").iterdir()):
        whole = file.read_bytes()
        for length in {0, 1, len(whole) // 2, len(whole) - 1}:
            file.write_bytes(whole[:length])
            assert_found(two, 1)
        file.unlink()
        assert_found(two, 1)
        file.write_bytes(whole)
    assert told().count("the checkpoint after epoch 2 is passed over") == 15
    assert_found(two, 2)


def test_f28_files_of_an_older_attempt_do_not_pass_for_this_one(two):
    for name in ("values.json", "arrays.npz"):
        shutil.copy(two.folder / "000002" / name, two.folder / "kept")
        shutil.copy(two.folder / "000001" / name, two.folder / "000002" / name)
        assert_found(two, 1)
        shutil.move(two.folder / "kept", two.folder / "000002" / name)
    assert_found(two, 2)


def test_f28_a_whole_checkpoint_of_another_training_is_passed_over(two, told):
    other = Checkpoints(two.folder, "a trial with another seed")
    assert other.load() is None
    assert told().count("it is of another training") == 2
    other.save(checkpoint(3))
    assert_found(two, 2)


def test_f29_a_byte_flipped_anywhere_is_noticed_a_hundred_times_out_of_a_hundred(two):
    draw = random.Random(1)
    files = sorted((two.folder / "000002").iterdir())
    assert [file.name for file in files] == ["arrays.npz", "manifest.json", "values.json"]
    for number in range(100):
        file = files[0] if number < 80 else files[number % 3]
        whole = file.read_bytes()
        damaged = bytearray(whole)
        damaged[draw.randrange(len(whole))] ^= 1 << draw.randrange(8)
        file.write_bytes(damaged)
        assert_found(two, 1)
        file.write_bytes(whole)
    assert_found(two, 2)


def test_f31_a_checkpoint_deleted_underneath_means_the_one_before_and_then_none(two, told):
    shutil.rmtree(two.folder / "000002")
    assert_found(two, 1)
    shutil.rmtree(two.folder)
    assert two.load() is None
    two.save(checkpoint(1))
    (two.folder / "000001" / "arrays.npz").write_bytes(b"")
    assert two.load() is None
    assert "the checkpoint after epoch 1 is passed over: arrays.npz must be as the manifest says" in told()


class Planted:
    """Makes a folder when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def vouch_for(folder):
    """What somebody who may write to a run can do: a manifest that fits what was planted."""
    described = json.loads((folder / "manifest.json").read_text())
    content = (folder / "arrays.npz").read_bytes()
    described["files"]["arrays.npz"] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    (folder / "manifest.json").write_text(json.dumps(described))


def test_f50_code_planted_in_a_checkpoint_is_never_run(two, tmp_path):
    planted, trap = two.folder / "000002" / "arrays.npz", np.empty(1, object)
    trap[0] = Planted(tmp_path / "was run")
    with planted.open("wb") as stream:
        np.savez(stream, trap=trap)
    with np.load(planted, allow_pickle=True) as stored:
        assert stored["trap"].shape == (1,)
    assert (tmp_path / "was run").exists()  # so the trap works
    (tmp_path / "was run").rmdir()
    for content in (planted.read_bytes(), pickle.dumps(trap[0]), b"PK\x03\x04 no archive"):
        planted.write_bytes(content)
        vouch_for(two.folder / "000002")
        assert_found(two, 1)
    assert not (tmp_path / "was run").exists()

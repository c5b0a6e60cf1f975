"""Disks that are full or failing, under everything that a network writes: whatever call fails, what was there before is
whole, nothing half is taken for whole, and doing it again succeeds.
"""

import errno
import json
import os
import resource
import shutil
from collections import namedtuple
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from failing_disk import FailingDisk, failing_disk
from PIL import Image

from trainable.checkpoint import Checkpoint, Checkpoints
from trainable.dataset import ImageSet, build_arrays
from trainable.errors import InputError
from trainable.features import FeatureKey, FeatureStore
from trainable.retrain import FinalPaths, save_final
from trainable.settings import DataSettings
from trainable.split import SplitRow, read_split, write_split
from trainable.whole_file import sha256

Work = namedtuple("Work", ["do", "state", "may_lose"], defaults=[False])
"""`do(folder, version)` writes version 1 or 2; `state(folder)` is the version that is found, None: none. Where work
`may_lose`, it can be done again: after a failure there may be none, if that is noticed.
"""


def save_checkpoint(folder, version):
    arrays = {"head": np.full(3000, version, np.float32)}
    Checkpoints(folder / "checkpoint", "it").save(Checkpoint(version, arrays, {"version": version}))


def saved_checkpoint(folder):
    found = Checkpoints(folder / "checkpoint", "it").load()
    assert found is None or (found.arrays["head"] == found.values["version"]).all()
    return found and found.values["version"]


KEY = FeatureKey("images", "train", 4, None, "float32")


def build_features(folder, version):
    """The second version finds the first damaged."""
    store = FeatureStore(folder / "features", 10**6)
    for path in (folder / "features").glob("*.npy") if version == 2 else ():
        path.write_bytes(path.read_bytes()[:-1])
    if store.get(KEY, (70, 5), lambda array: array.fill(version)) is None:
        raise OSError("not kept")


def built_features(folder):
    found = FeatureStore(folder / "features", 10**6).find(KEY, (70, 5))
    assert found is None or len(np.unique(found)) == 1
    return None if found is None else int(found[0, 0])


def image_rows(data, version):
    rows = []
    for index in range(4):
        path = data / "ab"[index % 2] / f"{index}.png"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("L", (8, 8), 50 * version + index).save(path)
        file = path.relative_to(data).as_posix()
        rows.append(SplitRow(file, sha256(path), path.parent.name, str(index), "train"))
    return rows


def decode_images(folder, version):
    data = folder.parent / f"images of version {version}"
    rows = image_rows(data, version)
    build_arrays(folder / "arrays", DataSettings(path=data, image_size=32), rows, "train")


def decoded_images(folder):
    try:
        found = ImageSet.open(folder / "arrays", "train")
    except InputError:
        return None
    assert [int(image.max()) % 50 for image in found.images] == [0, 1, 2, 3]
    return int(found.images[0].max()) // 50


def split(folder, version):
    write_split(folder / "split.csv", [SplitRow(f"a/{row}", "0", "a", "g", "train") for row in range(400 * version)])


def found_split(folder):
    return len(read_split(folder / "split.csv")) // 400 if (folder / "split.csv").exists() else None


class Model:
    """Saves as Keras does: a file of its own making under the path it is given."""

    def __init__(self, version):
        self.version = version

    def save(self, path):
        assert path.suffix == ".keras"
        with path.open("wb") as stream:
            stream.write(bytes([self.version]) * 30_000)


def save_model(folder, version):
    history = [{"epoch": 1, "loss": 0.5}]
    save_final(FinalPaths(folder / "final"), Model(version), np.full((9, 2), version), history, {"version": version})


def saved_model(folder):
    paths = FinalPaths(folder / "final")
    if not paths.description.exists():
        return None
    version = json.loads(paths.description.read_text())["version"]
    assert json.loads(paths.description.read_text())["sha256"] == sha256(paths.model)
    assert paths.model.read_bytes() == bytes([version]) * 30_000
    assert (np.load(paths.validation) == version).all()
    return version


WORKS = {
    "checkpoint": Work(save_checkpoint, saved_checkpoint),
    "features": Work(build_features, built_features, may_lose=True),
    "arrays": Work(decode_images, decoded_images, may_lose=True),
    "split.csv": Work(split, found_split),
    "model": Work(save_model, saved_model, may_lose=True),
}


def unfinished(folder):
    return [path for path in folder.rglob("*") if ".tmp" in path.name]


def begin(folder, work):
    """The first version, in an empty folder."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for version in (1, 2):
        image_rows(folder.parent / f"images of version {version}", version)
    work.do(folder, 1)
    assert work.state(folder) == 1


@contextmanager
def counted_disk(folder, failing, **how):
    """`failing_disk`, which also counts the claims of space."""
    real = os.posix_fallocate
    with failing_disk(FailingDisk(folder, failing, **how)) as disk:

        def claim(descriptor, *arguments):
            disk.call("posix_fallocate", Path(f"/proc/self/fd/{descriptor}").readlink())
            real(descriptor, *arguments)

        with mock.patch.object(os, "posix_fallocate", claim):
            yield disk


def fails(do, *arguments):
    """Whether it said so."""
    try:
        do(*arguments)
    except OSError:
        return True
    return False


@pytest.mark.parametrize("how", [{"code": errno.ENOSPC, "lasting": True}, {"code": errno.EIO}], ids=["full", "failing"])
@pytest.mark.parametrize("name", WORKS)
def test_f23_whatever_call_fails_the_earlier_version_or_none_is_found_and_doing_it_again_succeeds(tmp_path, name, how):
    work, folder, number = WORKS[name], tmp_path / "run", 0
    while True:
        number += 1
        begin(folder, work)
        with counted_disk(folder, number, **how) as disk:
            said = fails(work.do, folder, 2)
        if not disk.failed:
            break
        before = {1, None} if work.may_lose else {1}
        after_renaming = disk.calls[-2:] in (["replace", "fsync"], ["rename", "fsync"])
        if not said:  # the call was not needed: a folder to be made was there
            before, after_renaming = set(), True
        assert work.state(folder) in before | ({2} if after_renaming else set()), disk.calls
        assert unfinished(folder) == []
        work.do(folder, 2)
        assert work.state(folder) == 2
    assert not said
    assert work.state(folder) == 2
    assert number > 4


@pytest.mark.parametrize("name", WORKS)
def test_f22_a_limit_on_the_size_of_files_is_a_full_disk(tmp_path, name):
    """The kernel refuses the writes here, those of C code and of memory maps too."""
    work, folder, refused = WORKS[name], tmp_path / "run", 0
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    for limit in (0, 1, 100, 1000, 4000, 9000, 20_000, 10**6):
        begin(folder, work)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
        try:
            said = fails(work.do, folder, 2)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert unfinished(folder) == []
        assert work.state(folder) in (({1, None} if work.may_lose else {1}) if said else {2})
        work.do(folder, 2)
        assert work.state(folder) == 2
        refused += said
    assert refused >= 3
    assert not said

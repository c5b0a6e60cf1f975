"""Files that somebody planted in a run folder: never loaded as code, and a folder that is open to all is refused."""

import ast
import json
import os
import pickle
import shutil
import stat
import sys
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydantic import BaseModel

import analysis
import search
import trainable
from search import cli
from search.config import Direction, StudyConfig
from search.driver import Session
from search.errors import ConfigurationError
from trainable.checkpoint import Checkpoint, Checkpoints
from trainable.dataset import ImageSet, build_arrays
from trainable.errors import InputError
from trainable.features import FeatureKey, FeatureStore
from trainable.predict import Classifier
from trainable.settings import DataSettings
from trainable.split import SplitRow
from trainable.whole_file import sha256

PACKAGES = [Path(package.__file__).parent for package in (analysis, search, trainable)]


class Training(BaseModel):
    x: float = 0.0


class Nothing:
    """A trainable that prepares, but is never asked for a trial."""

    sections: Mapping[str, type[BaseModel]] = {"training": Training}
    metrics: Mapping[str, Direction] = {"v": "maximize"}
    trial_class = object

    def settled(self, config: Any, earlier: Any) -> Any:
        return config

    def prepare(self, config: Any, largest: Any, folder: Path, progress: Any) -> Any:
        return SimpleNamespace(record={}, context={}, remarks=())


def opened(storage):
    """A session on the study `it`, begun and ended; its paths."""
    space = {"x": {"type": "float", "low": 0.1, "high": 1.0}}
    document = {"name": "it", "storage": str(storage), "space": space, "objective": {"metric": "v"}}
    with Session(StudyConfig.parse(document), Nothing()) as session:
        return session.paths


class Trap:
    """Makes a folder when it is unpickled."""

    def __init__(self, sprung):
        self.sprung = sprung

    def __reduce__(self):
        return os.mkdir, (str(self.sprung),)


@pytest.fixture
def trap(tmp_path):
    """A pickle that does harm, as bytes and as an array; at the end it must not have been loaded."""
    sprung = tmp_path / "sprung"
    array = np.empty(70, object)
    array[:] = [Trap(sprung)] * 70
    pickled = pickle.dumps(array[0])
    pickle.loads(pickled)
    sprung.rmdir()  # so it works
    yield SimpleNamespace(pickled=pickled, array=array)
    assert not sprung.exists()


def test_f50_pickles_in_a_run_folder_are_never_loaded(tmp_path, trap, monkeypatch, capsys):
    paths = opened(tmp_path)
    names = [
        "tuner.pkl",
        "ray/searcher-state.pkl",
        "scratch/x.pkl",
        "trials/planted/params.pkl",
        "final/model.h5",
        "x.joblib",
    ]
    for name in [
        *names,
        "best.pkl",
        "arrays/train.pkl",
        "trials/planted/.tune_metadata",
        "sitecustomize.py",
        "conftest.py",
    ]:
        (paths.root / name).parent.mkdir(parents=True, exist_ok=True)
        (paths.root / name).write_bytes(trap.pickled)
    assert opened(tmp_path) == paths
    monkeypatch.chdir(paths.root)  # what lies in the folder one works in is not imported either
    for command in (["status"], ["trials"], ["trials", "--format", "json"]):
        monkeypatch.setattr(sys, "argv", ["thawline", *command, str(paths.root)])
        assert cli._exit_code() == 0
    capsys.readouterr()


def test_f50_arrays_that_hold_objects_are_refused_even_where_their_sha256_fits(tmp_path, trap):
    Image.new("L", (8, 8)).save(tmp_path / "0.png")
    rows = [SplitRow("0.png", sha256(tmp_path / "0.png"), "a", "g", "train")]
    build_arrays(tmp_path / "arrays", DataSettings(path=tmp_path, image_size=32), rows, "train")
    np.save(tmp_path / "arrays" / "train.npy", trap.array, allow_pickle=True)
    described = json.loads((tmp_path / "arrays" / "train.json").read_text())
    described["train.npy"] = sha256(tmp_path / "arrays" / "train.npy")
    (tmp_path / "arrays" / "train.json").write_text(json.dumps(described))
    with pytest.raises(ValueError, match="Python objects in dtype"):
        ImageSet.open(tmp_path / "arrays", "train")


def test_f50_features_that_hold_objects_are_built_again(tmp_path, trap):
    key, store = FeatureKey("images", "train", 4, None, "float32"), FeatureStore(tmp_path / "scratch", 10**6)
    store.get(key, (70,), lambda array: array.fill(7))
    for plant in (lambda path: np.save(path, trap.array), lambda path: path.write_bytes(trap.pickled)):
        plant(tmp_path / "scratch" / f"{key.digest}.npy")
        found = FeatureStore(tmp_path / "scratch", 10**6).get(key, (70,), lambda array: array.fill(7))
        assert found.tolist() == [7] * 70


def test_f50_a_checkpoint_that_is_one_pickle_is_passed_over(tmp_path, trap):
    checkpoints = Checkpoints(tmp_path / "checkpoint", "it")
    checkpoints.save(Checkpoint(1, {"a": np.ones(3)}, {}))
    shutil.copytree(tmp_path / "checkpoint" / "000001", tmp_path / "checkpoint" / "000002")
    for name in ("arrays.npz", "values.json", "manifest.json"):
        (tmp_path / "checkpoint" / "000002" / name).write_bytes(trap.pickled)
    assert checkpoints.load().epoch == 1


@pytest.mark.parametrize("name", ["model.keras", "model.h5"])
def test_f50_a_model_without_its_description_is_not_loaded(tmp_path, trap, name):
    (tmp_path / name).write_bytes(trap.pickled)
    with pytest.raises(InputError, match=r"must hold model\.keras and model\.json"):
        Classifier.load(tmp_path)


def sources():
    return [path for package in PACKAGES for path in package.rglob("*.py")]


@pytest.mark.parametrize("path", sources(), ids=lambda path: f"{path.parent.name}/{path.name}")
def test_f50_nothing_of_ours_can_load_code_from_a_file(path):
    forbidden = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "torch", "runpy"}
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [each.name for each in node.names]
            assert forbidden.isdisjoint(name.partition(".")[0] for name in names)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in ("eval", "exec", "compile")
        if isinstance(node, ast.keyword) and node.arg in ("allow_pickle", "safe_mode"):
            assert isinstance(node.value, ast.Constant)
            assert node.value.value is (node.arg == "safe_mode")


def test_f50_a_run_folder_that_everybody_may_write_to_is_refused_until_it_is_closed(tmp_path):
    paths = opened(tmp_path)
    before = {path: path.read_bytes() for path in paths.root.rglob("*") if path.is_file()}
    paths.root.chmod(0o777)
    with pytest.raises(ConfigurationError) as caught:
        opened(tmp_path)
    [problem] = caught.value.problems
    assert problem.startswith(f"storage: the run folder {paths.root} must not be writable for everybody, because ")
    assert problem.endswith(f"then: chmod -R o-w {paths.root}")
    assert {path: path.read_bytes() for path in paths.root.rglob("*") if path.is_file()} == before
    paths.root.chmod(0o755)
    opened(tmp_path)


def test_f50_a_new_run_folder_is_closed_to_others_whatever_the_umask(tmp_path):
    before = os.umask(0)
    try:
        paths = opened(tmp_path)
        assert not paths.root.stat().st_mode & stat.S_IWOTH
        assert opened(tmp_path) == paths
    finally:
        os.umask(before)


def test_f50_where_no_modes_are_kept_they_mean_nothing(tmp_path, monkeypatch):
    paths = opened(tmp_path)
    paths.root.chmod(0o777)
    monkeypatch.setattr("search.paths._keeps_modes", lambda _: False)
    assert opened(tmp_path) == paths

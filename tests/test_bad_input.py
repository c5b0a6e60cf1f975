"""Bad input: one clear message on standard error for each problem, exit code 2, and nothing made."""

import hashlib
import os
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import yaml

from search import cli
from search.commands.arguments import load_study
from search.ledger import Ledger
from search.paths import StudyPaths
from search.safe_yaml import to_yaml
from trainable.synthetic import draw_study

SPACE = {
    "learning_rate": {"type": "float", "low": 0.0001, "high": 0.01, "log": True},
    "freeze_depth": {"type": "int", "low": 0, "high": 5},
}


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """Twenty images of each class at 32 pixels, and their patients."""
    folder = tmp_path_factory.mktemp("drawn")
    draw_study(folder, images_per_class=20, image_size=32, seed=1)
    return folder


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def refusal(here, monkeypatch, capsys):
    """Runs a command that must be refused, and gives what it said, a line per problem."""

    def run(*arguments):
        before = _files(here)
        monkeypatch.setattr(sys, "argv", ["thawline", *map(str, arguments)])
        assert cli._exit_code() == 2
        assert _files(here) == before
        said = capsys.readouterr()
        assert "Traceback" not in said.out + said.err
        return [line for line in said.err.splitlines() if line.startswith("error:")]

    return run


def _files(folder):
    return {path for path in folder.rglob("*") if path.is_file()}


def _study(drawn, path="study.yaml", **sections):
    """Writes a study file; `section__key=value` sets one value, `section=value` a whole section."""
    document = {
        "data": {"path": str(drawn / "images"), "groups": str(drawn / "groups.csv"), "image_size": 32},
        "model": {"weights": "random"},
        "training": {"batch_size": 8},
        "space": {name: dict(values) for name, values in SPACE.items()},
        "budget": {"trials": 2, "epochs": 1},
    }
    for name, value in sections.items():
        section, _, key = name.partition("__")
        if key:
            document.setdefault(section, {})[key] = value
        else:
            document[section] = value
    Path(path).write_text(yaml.safe_dump(document), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("sections", "expected"),
    [
        ({"budgett": {"trials": 3}}, "budgett: unknown key; did you mean `budget`?"),
        ({"model__architekture": "resnet50"}, "model.architekture: unknown key; did you mean `architecture`?"),
        ({"space__learning_rat": SPACE["learning_rate"]}, "space.learning_rat: unknown hyperparameter; did you mean"),
        ({"space__freeze_depth": {"type": "int", "low": 5, "high": 0}}, "must hold, but got (low=5, high=0)"),
        ({"model__architecture": "resnet51"}, "but got 'resnet51'"),
        ({"objective__metric": "val_auk"}, "objective.metric: must be one of"),
        ({"sampler": {"name": "grid"}}, "space.learning_rate: the grid sampler needs `step` or a choice"),
    ],
)
def test_a_slip_in_the_study_file_is_named_with_its_place(drawn, refusal, sections, expected):
    [line] = refusal("search", _study(drawn, **sections))
    assert expected in line


def test_a_missing_image_folder_is_named(here, drawn, refusal):
    [line] = refusal("search", _study(drawn), "--set", "data.path=nowhere")
    assert "`data.path` must be a readable folder" in line
    assert str(here / "nowhere") in line


def test_one_class_is_not_enough(here, drawn, refusal):
    _link(here / "images" / "lesion", drawn / "images" / "lesion")
    [line] = refusal("search", _study(drawn), "--set", "data.path=images", "--set", "data.groups=none")
    assert "must hold at least two class folders, but holds only `lesion`" in line


def test_an_empty_class_is_named(here, drawn, refusal):
    _link(here / "images" / "lesion", drawn / "images" / "lesion")
    (here / "images" / "clear").mkdir()
    [line] = refusal("search", _study(drawn), "--set", "data.path=images", "--set", "data.groups=none")
    assert "class folder `clear` must hold readable images, but holds none" in line


def _link(folder, images):
    folder.mkdir(parents=True)
    for image in images.iterdir():
        os.link(image, folder / image.name)


def test_weights_with_another_sha256_are_refused(here, drawn, refusal):
    (here / "some.weights.h5").write_bytes(b"weights")
    wanted, came = "0" * 64, hashlib.sha256(b"weights").hexdigest()
    [line] = refusal("search", _study(drawn, model={"weights": "some.weights.h5", "weights_sha256": wanted}))
    assert line.startswith("error: model.weights_sha256:")
    assert wanted in line
    assert came in line


def test_weights_that_are_not_there_are_named(drawn, refusal):
    [line] = refusal("search", _study(drawn, model={"weights": "missing.weights.h5"}))
    assert "model.weights: must be imagenet, random or a readable file, but" in line


@pytest.mark.slow
def test_weights_of_another_architecture_are_refused(here, drawn, refusal):
    with h5py.File("other.weights.h5", "w") as file:
        file["layers/dense/vars/0"] = np.zeros((3, 2), dtype=np.float32)
    [line] = refusal("search", _study(drawn, model={"architecture": "mobilenetv2", "weights": "other.weights.h5"}))
    assert line.startswith(f"error: model.weights: {here / 'other.weights.h5'} must hold weights of MobileNetV2")


@pytest.mark.parametrize(("unit", "depth", "most"), [("stage", 6, 5), ("block", 18, 17)])
def test_a_freeze_depth_beyond_the_backbone_is_refused(drawn, refusal, unit, depth, most):
    wide = {"type": "int", "low": 0, "high": depth}
    [line] = refusal("search", _study(drawn, model__freeze_unit=unit, space__freeze_depth=wide))
    assert f"freeze_depth: must be at most {most} for resnet50 counted by {unit}, but got {depth}" in line


def test_a_batch_larger_than_the_training_set_is_refused(drawn, refusal):
    [line] = refusal("search", _study(drawn, space__batch_size={"type": "choice", "values": [8, 1024]}))
    assert "batch_size: must be at most the" in line
    assert line.endswith("training images, but got 1024")


def test_a_group_in_two_parts_of_a_given_split_is_named(here, drawn, refusal):
    files = sorted(path.relative_to(drawn / "images").as_posix() for path in (drawn / "images").rglob("*.png"))
    parts = ["train", "validation", "test"]
    rows = "".join(f"{file},{parts[number % 3]}\n" for number, file in enumerate(files))
    (here / "split.csv").write_text(f"file,part\n{rows}", encoding="utf-8")
    lines = refusal("search", _study(drawn, data__split_file=str(here / "split.csv")))
    assert lines
    assert all(f"{here / 'split.csv'}: a group must lie in one part, but `" in line for line in lines[:-1])


def test_a_run_folder_below_a_file_is_refused(here, drawn, refusal):
    (here / "file").write_text("")
    [line] = refusal("search", _study(drawn), "--set", f"storage={here / 'file'}")
    assert "storage: the run folder" in line
    assert line.endswith("must be writable, but Not a directory")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_run_folder_that_may_not_be_written_is_refused(here, drawn, refusal):
    (here / "runs").mkdir(mode=0o500)
    [line] = refusal("search", _study(drawn))
    assert line.endswith("must be writable, but Permission denied")


def test_another_configuration_of_an_existing_run_is_refused_with_the_difference(here, drawn, refusal):
    _study(drawn)
    paths = StudyPaths(here / "runs" / "study")
    paths.root.mkdir(parents=True)
    paths.study_file.write_text(to_yaml(load_study("study.yaml", []).dump()), encoding="utf-8")
    Ledger(paths.ledger).close()
    lines = refusal("search", "study.yaml", "--set", "space.freeze_depth.high=3", "--set", "seed=7", "--trials", "50")
    assert "holds a study with another configuration; give another --name, or undo:" in lines[0]
    assert sorted(lines[1:]) == ["error: seed: 0 -> 7", "error: space.freeze_depth.high: 5 -> 3"]


def test_problems_of_a_study_file_are_told_together(drawn, refusal):
    lines = refusal(
        "search",
        _study(
            drawn,
            budgett={},
            budget={"trials": 0},
            space__freeze_depth={"type": "int", "low": 5, "high": 0},
            space__batch_sizes={"type": "choice", "values": [8]},
            data__colour="green",
        ),
    )
    places = {line.split(": ")[1] for line in lines}
    assert places == {"budgett", "budget.trials", "space.freeze_depth", "space.batch_sizes", "data.colour"}


def test_problems_of_depth_images_and_weights_are_told_together(here, drawn, refusal):
    (here / "images").mkdir()
    wide = {"type": "int", "low": 0, "high": 9}
    study = _study(drawn, space__freeze_depth=wide, model={"weights": "missing.weights.h5"}, data__groups="none")
    lines = refusal("search", study, "--set", "data.path=images")
    assert len(lines) == 3
    assert "freeze_depth" in lines[0]
    assert "one folder of images per class" in lines[1]
    assert "model.weights" in lines[2]


def test_a_refused_study_leaves_no_run_folder(here, drawn, refusal):
    refusal("search", _study(drawn), "--set", "data.path=nowhere")
    assert not (here / "runs" / "study").exists()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["search", "nowhere.yaml"], "nowhere.yaml: must be a study file or a run"),
        (["search", "STUDY", "--set", "seed"], "--set seed: must read section.key=value"),
        (["search", "STUDY", "--time-budget", "soon"], "--time-budget: must read 90s, 30m or 1h30m, but got 'soon'"),
        (["search", "STUDY", "--trials", "0"], "budget.trials: must be greater than or equal to 1, but got 0"),
        (["search", "STUDY", "--name", "../x"], "name: must be 1-100 letters, digits"),
        (["search", "STUDY", "--final", "--set", "data.split={train: 0.8, validation: 0.2, test: 0}"], "for --final"),
        (["status", "nowhere"], "nowhere: must be a run folder or the name of one under runs/"),
        (["predict", "nowhere", "."], "nowhere: must be a run folder"),
        (["init", "study.txt"], "study.txt: must end in .yaml"),
        (["data", "check", "nowhere"], "`data.path` must be a readable folder"),
        (["data", "check", ".", "--set", "colour=green"], "data.colour: must be 'grey' or 'rgb', but got 'green'"),
    ],
)
def test_a_slip_on_the_command_line_is_named(drawn, refusal, arguments, expected):
    study = _study(drawn)
    [line] = refusal(*(study if argument == "STUDY" else argument for argument in arguments))
    assert expected in line

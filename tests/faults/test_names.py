"""Names from strangers: of studies, classes and files. They are refused by an allow-list, or written down exactly and
shown harmlessly.
"""

import csv
import os
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from analysis.evaluation import read_predictions
from analysis.trials import read_table, write_table
from search import cli
from search.console import printable
from trainable.dataset import ImageSet, build_arrays
from trainable.evaluate import _write_predictions
from trainable.inspection import inspect_images
from trainable.predict import Classifier, Description
from trainable.retrain import FinalPaths
from trainable.settings import DataSettings
from trainable.split import make_split, read_split, write_split
from trainable.whole_file import read_csv, write_csv

FORMULAS = ["=cmd|' C calc'!A0", "+1+1", "-2+3", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "'=1", "''", "'quoted"]
MARKUP = ["<script>alert(1)<", "[red]x[", "{{7*7}}", "%s%n", "$(reboot)", "`id`", "a;b|c&d"]
UNPRINTABLE = ["two\nerror: forged", "\x1b[2J\x1b]0;title\x07", "invoice\u202egnp.exe", "a\u2028b", "a\rb", "\x7f"]
ODD = ["..", "...", "..\\x", "~", " ", "a ", "CON", "x" * 251, "ü😀", "NA", "1e5", ".png.png"]
HOSTILE = [*FORMULAS, *MARKUP, *UNPRINTABLE, *ODD]
CLASSES = ["=class()", "@b\u202e", "<img src=x>"]


@pytest.fixture
def root(tmp_path):
    """Three classes with hostile names, each with an image of every hostile name."""
    for seed, class_name in enumerate(CLASSES):
        (tmp_path / "data" / class_name).mkdir(parents=True)
        draw = np.random.default_rng(seed)
        for name in HOSTILE:
            pixels = draw.integers(0, 255, (8, 8), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "data" / class_name / f"{name[:251]}.png", "PNG")
    return tmp_path / "data"


def everything_below(folder):
    return sorted(folder.rglob("*"))


@pytest.mark.parametrize(
    "name",
    ["../x", "/etc/x", ".", "..", "a/b", "a\\b", "a\n", "x" * 255, "é", "\udcff", "<script>", "=cmd()", "\u202ex"],
)
def test_f49_a_study_with_a_name_that_could_lead_elsewhere_is_refused_and_nothing_is_written(
    tmp_path, monkeypatch, capsys, name
):
    here = tmp_path / "here"
    (here / "data").mkdir(parents=True)
    (here / "study.yaml").write_text(
        "data: {path: data}\nspace: {freeze_depth: {type: int, low: 0, high: 5}}\n", encoding="utf-8"
    )
    monkeypatch.chdir(here)
    monkeypatch.setattr(sys, "argv", ["thawline", "search", "study.yaml", "--name", name])
    before = everything_below(tmp_path)
    assert cli._exit_code() == 2
    said = capsys.readouterr().err
    assert said.startswith("error: name: must be")
    assert said.count("\n") == 1
    assert everything_below(tmp_path) == before


def test_f49_every_name_of_a_file_comes_back_exactly_from_split_and_arrays(root, tmp_path):
    settings = DataSettings(path=root, groups="none", image_size=32)
    inspection = inspect_images(settings)
    assert inspection.classes == tuple(sorted(CLASSES))
    assert {image.file for image in inspection.images} == {
        f"{each}/{name[:251]}.png" for each in CLASSES for name in HOSTILE if not f"{name}.png".startswith(".")
    }
    rows = make_split(inspection, settings, 0)
    write_split(tmp_path / "run" / "split.csv", rows)
    assert read_split(tmp_path / "run" / "split.csv") == rows
    built = build_arrays(tmp_path / "run" / "arrays", settings, rows, "train")
    assert built.files == tuple(row.file for row in rows if row.part == "train")
    assert built.classes == inspection.classes
    assert {path.name for path in tmp_path.iterdir()} == {"data", "run"}
    assert len(everything_below(tmp_path / "run")) == 5


def test_f49_a_split_file_that_was_written_for_one_study_can_be_given_to_another(root, tmp_path):
    settings = DataSettings(path=root, groups="none")
    rows = make_split(inspect_images(settings), settings, 0)
    write_split(tmp_path / "split.csv", rows)
    given = settings.model_copy(update={"split_file": tmp_path / "split.csv"})
    assert make_split(inspect_images(given), given, 1) == rows


def cells(path):
    with path.open(encoding="utf-8", newline="") as stream:
        return [cell for row in csv.reader(stream) for cell in row]


def assert_no_formula(found):
    assert not [cell for cell in found if cell.startswith(("=", "+", "-", "@", "\t", "\r", "\n"))]


def test_f49_no_cell_of_a_csv_file_starts_a_formula_and_every_text_comes_back(tmp_path):
    write_csv(tmp_path / "t.csv", ("name", "number"), [(name, -1.5) for name in HOSTILE])
    assert_no_formula(cell for cell in cells(tmp_path / "t.csv") if cell != "-1.5")
    assert [row["name"] for row in read_csv(tmp_path / "t.csv")] == HOSTILE
    assert {row["number"] for row in read_csv(tmp_path / "t.csv")} == {"-1.5"}  # numbers stay numbers


def test_f49_no_cell_of_the_trial_table_starts_a_formula_and_every_text_comes_back(tmp_path):
    table = pd.DataFrame({"number": range(len(HOSTILE)), "reason": pd.Series(HOSTILE, dtype="str")})
    write_table(table, tmp_path / "trials.csv")
    assert_no_formula(cells(tmp_path / "trials.csv"))
    assert read_table(tmp_path / "trials.csv")["reason"].tolist() == HOSTILE


@pytest.fixture
def classifier():
    """Says `@b` of everything, with certainty."""
    description = Description(
        classes=CLASSES, positive_class=None, threshold=0.5, image_size=32, colour="grey", sha256="0" * 64
    )
    return Classifier(lambda images, training: np.tile(np.float32([0, 1, 0]), (len(images), 1)), description)


def test_f49_predictions_of_an_evaluation_hold_no_formula_and_come_back_exactly(classifier, tmp_path):
    count = len(HOSTILE)
    images = ImageSet(
        images=np.zeros((count, 32, 32, 1), np.uint8),
        labels=np.zeros(count, np.int64),
        files=tuple(HOSTILE),
        groups=tuple(reversed(HOSTILE)),
        classes=tuple(CLASSES),
    )
    paths = FinalPaths(tmp_path)
    _write_predictions(paths, classifier, {"test": (images, classifier.probabilities(images.images))})
    assert_no_formula(cells(paths.predictions))
    table = read_predictions(paths.predictions)
    assert table["file"].tolist() == HOSTILE
    assert table["group"].tolist() == HOSTILE[::-1]
    assert set(table["class"]) == {CLASSES[0]}
    assert set(table["predicted"]) == {CLASSES[1]}


def predict(monkeypatch, classifier, *arguments):
    monkeypatch.setattr("search.commands.model.model_folder", Path)
    monkeypatch.setattr("search.commands.model.use_this_machine", lambda **_: None)
    monkeypatch.setattr(Classifier, "load", lambda _: classifier)
    monkeypatch.setattr(sys, "argv", ["thawline", "predict", "model", *arguments])
    return cli._exit_code()


def test_f49_predictions_of_new_images_hold_no_formula_and_come_back_exactly(
    classifier, root, tmp_path, monkeypatch, capfd
):
    monkeypatch.chdir(root / CLASSES[0])
    (tmp_path / "=broken.png").touch()
    names = sorted(path.name for path in Path().iterdir())
    expected = [f"./{name}" if name == "-" else name for name in names if name != "new.csv"]
    broken = os.path.relpath(tmp_path / "=broken.png")
    for output in ([], ["--output", str(tmp_path / "new.csv")]):
        assert predict(monkeypatch, classifier, *output, "--", *expected, broken) == 1
    said = capfd.readouterr().out
    assert said.encode().startswith((tmp_path / "new.csv").read_bytes()[:100])
    assert_no_formula(cells(tmp_path / "new.csv"))
    rows = read_csv(tmp_path / "new.csv")
    assert [row["file"] for row in rows] == [*expected, broken]
    assert rows[-1]["error"] == f"{broken}: the file is empty"
    assert {row["predicted"] for row in rows[:-1]} == {CLASSES[1]}


def test_f49_names_that_are_not_utf8_are_listed_and_predicted_under_names_that_can_be_written(
    classifier, tmp_path, monkeypatch
):
    for name in (b"ill/\xff.png", b"caf\xe9/a.png"):
        path = tmp_path / os.fsdecode(name)
        path.parent.mkdir()
        Image.new("L", (8, 8)).save(path)
    unreadable = inspect_images(DataSettings(path=tmp_path)).unreadable
    assert {entry.file: entry.reason for entry in unreadable} == {
        "ill/\\xff.png": "the name is not UTF-8; rename it",
        "caf\\xe9": "the name is not UTF-8; rename it",
    }
    (tmp_path / os.fsdecode(b"\xfe.png")).touch()
    output = tmp_path / "new.csv"
    assert predict(monkeypatch, classifier, str(tmp_path), "--output", str(output)) == 1
    rows = read_csv(output)
    assert [row["file"].removeprefix(f"{tmp_path}/") for row in rows] == [
        "caf\\xe9/a.png",
        "ill/\\xff.png",
        "\\xfe.png",
    ]
    assert rows[2]["error"] == f"{tmp_path}/\\xfe.png: the file is empty"


def test_f49_what_a_terminal_is_told_of_names_moves_no_cursor_and_forges_no_line(root, monkeypatch, capsys):
    for name in (*UNPRINTABLE, "[red]x["):
        (root / CLASSES[0] / f"{name}.png").write_bytes(b"")
    monkeypatch.setattr(sys, "argv", ["thawline", "data", "check", str(root), "--set", "groups=none"])
    assert cli._exit_code() == 2
    said = capsys.readouterr()
    for line in (said.out + said.err).split("\n"):
        assert line.isprintable()
        assert not line.startswith(("error: forged", "forged"))
    assert "two\\nerror: forged.png: the file is empty" in said.out
    assert "invoice\\u202egnp.exe.png" in said.out
    assert "[red]x[.png" in said.out


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain ü😀 [red]", "plain ü😀 \\[red]"),
        ("a\nb\tc\x1b[2J", "a\\nb\\tc\\x1b[2J"),
        ("\u202ex\u2066", "\\u202ex\\u2066"),
        ("\udcff", "\\udcff"),
    ],
)
def test_f49_a_line_for_a_terminal_shows_what_could_do_harm_as_an_escape(text, shown):
    assert printable(text) == shown

import csv
import json
import math
import warnings

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread

from analysis.evaluation import Confusion, Reliability, Roc, TrainingCurve
from analysis.figures import (
    LONGEST_NAME,
    draw_confusion,
    draw_evaluation,
    draw_mistakes,
    draw_reliability,
    draw_roc,
    draw_training,
    shown,
)

NAMES = ["confusion_matrix.png", "accuracy_by_epoch.png", "loss_by_epoch.png", "roc.png", "reliability.png"]
HOSTILE = ["$x^2 \\frac{$ <script>alert(1)</script> and so on and on", "_first\nsecond $"]
METRICS = {
    name: {"value": 0.75, "interval": [0.5, 0.9]}
    for name in ("accuracy", "auc", "sensitivity", "specificity", "expected_calibration_error")
} | {"threshold": 0.4, "bootstrap": {"level": 0.95}}


@pytest.fixture(autouse=True)
def warnings_are_errors():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


@pytest.fixture
def texts(monkeypatch):
    """Every text that is in a figure when it is saved, as it is written down."""
    seen = []
    save = Figure.savefig

    def remember(figure, *arguments, **keywords):
        save(figure, *arguments, **keywords)
        seen.extend(text.get_text() for text in figure.findobj(matplotlib.text.Text))

    monkeypatch.setattr(Figure, "savefig", remember)
    return seen


def is_a_picture(path):
    """Large enough to hold something, and not one colour."""
    pixels = imread(path)
    return min(pixels.shape[:2]) > 300 and pixels.std() > 0.01


def write_final(folder, classes):
    shares = np.full(len(classes), 0.2 / (len(classes) - 1))
    rows = []
    for number, name in enumerate(classes * 3):
        probabilities = shares.copy()
        probabilities[number % 2] = 0.8
        predicted = classes[number % 2]
        rows.append([f"{number}.png", f"g{number}", "test", name, predicted, *probabilities.tolist()])
    with (folder / "predictions.csv").open("w", encoding="utf-8", newline="") as stream:
        header = ["file", "group", "part", "class", "predicted", *(f"probability_{name}" for name in classes)]
        csv.writer(stream).writerows([header, *rows])
    (folder / "history.csv").write_text("epoch,loss,accuracy,val_loss,val_accuracy\n1,0.7,0.5,,\n2,0.6,0.6,,\n")
    document = METRICS | {"positive_class": classes[0] if len(classes) == 2 else None}
    (folder / "metrics.json").write_text(json.dumps(document), encoding="utf-8")


@pytest.mark.parametrize("classes", [["COVID", "NonCOVID"], HOSTILE, [*HOSTILE, "c"]], ids=["two", "hostile", "three"])
def test_an_evaluation_becomes_five_pictures(tmp_path, classes):
    write_final(tmp_path, classes)
    files = draw_evaluation(tmp_path)
    assert [file.name for file in files] == NAMES
    assert sorted(file.name for file in (tmp_path / "figures").iterdir()) == sorted(NAMES)
    assert all(is_a_picture(file) for file in files)


def test_drawing_again_replaces_pictures_and_leaves_global_settings_alone(tmp_path):
    write_final(tmp_path, ["a", "b"])
    before = dict(matplotlib.rcParams)
    first = [file.read_bytes() for file in draw_evaluation(tmp_path)]
    assert [file.read_bytes() for file in draw_evaluation(tmp_path)] == first
    assert dict(matplotlib.rcParams) == before


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("COVID", "COVID"),
        ("a\nb\tc\u202e", "a b c"),
        ("x" * 100, "x" * (LONGEST_NAME - 1) + "…"),
    ],
)
def test_a_class_name_is_shown_on_one_short_line(name, expected):
    assert shown(name) == expected


def test_a_dollar_in_a_class_name_opens_no_formula(tmp_path):
    counts, shares = np.eye(2, dtype=int), np.eye(2)
    draw_confusion(Confusion([r"$\frac{$", "b"], counts, shares), tmp_path / "matrix.png")
    draw_roc([Roc(r"$\frac{$", np.array([0, 1]), np.array([0, 1]), 0.5)], METRICS, tmp_path / "roc.png")
    assert is_a_picture(tmp_path / "matrix.png")
    assert is_a_picture(tmp_path / "roc.png")


def test_cells_hold_counts_and_percentages_of_the_actual_class(tmp_path, texts):
    shares = np.array([[2 / 3, 1 / 3], [math.nan, math.nan]])
    draw_confusion(Confusion(["a", "b"], np.array([[2, 1], [0, 0]]), shares), tmp_path / "matrix.png")
    assert {"2\n66.7%", "1\n33.3%", "0\n–", "actual", "predicted"} <= set(texts)


def test_cells_of_many_classes_hold_colours_only(tmp_path, texts):
    draw_confusion(
        Confusion([f"class {number}" for number in range(30)], np.eye(30, dtype=int), np.eye(30)),
        tmp_path / "matrix.png",
    )
    assert is_a_picture(tmp_path / "matrix.png")
    assert "class 29" in texts
    assert not [text for text in texts if "\n" in text]


def test_the_best_epoch_is_named_and_an_unmeasured_curve_left_out(tmp_path, texts):
    epochs, nowhere = np.array([1, 2, 3]), np.full(3, math.nan)
    draw_training(TrainingCurve("loss", epochs, np.array([3.0, 2.0, 1.0]), nowhere), None, tmp_path / "loss.png")
    assert "training" in texts
    assert "validation" not in texts
    draw_training(TrainingCurve("loss", epochs, nowhere + 1, np.array([3.0, 1.0, 2.0])), 2, tmp_path / "loss.png")
    assert "validation" in texts
    assert "dotted: best epoch, 2" in texts


def test_the_roc_states_auc_and_operating_point_with_intervals(tmp_path, texts):
    draw_roc([Roc("_a", np.array([0, 0.5, 1]), np.array([0, 1, 1.0]), 0.75)], METRICS, tmp_path / "roc.png")
    assert "AUC 0.750 [0.500, 0.900]" in texts
    assert "class _a" in texts
    assert "threshold 0.400\nsensitivity 0.750 [0.500, 0.900]\nspecificity 0.750 [0.500, 0.900]" in texts


def test_a_roc_without_pairs_is_drawn_without_curve_or_point(tmp_path, texts):
    unknown = {"value": None, "interval": [None, None]}
    metrics = METRICS | {"auc": unknown, "sensitivity": unknown}
    draw_roc([Roc("a", np.empty(0), np.empty(0), math.nan)], metrics, tmp_path / "roc.png")
    assert "AUC not defined" in texts
    assert not [text for text in texts if text.startswith("threshold")]


def test_each_of_several_classes_has_its_auc_and_many_share_one_line_in_the_legend(tmp_path, texts):
    def curve(name):
        return Roc(name, np.array([0, 0.5, 1]), np.array([0, 1, 1.0]), 0.75)

    draw_roc([curve("a"), curve("b"), curve("c")], METRICS, tmp_path / "roc.png")
    assert {"Macro AUC 0.750 [0.500, 0.900]", "class b, AUC 0.750"} <= set(texts)
    draw_roc([curve(f"n{number}") for number in range(20)], METRICS, tmp_path / "roc.png")
    assert "each of 20 classes" in texts
    assert not [text for text in texts if "n19" in text]


def test_reliability_shows_how_many_images_each_bin_holds(tmp_path, texts):
    edges, empty = np.linspace(0, 1, 5), math.nan
    values = Reliability(
        edges, np.array([empty, empty, 0.6, 0.9]), np.array([empty, empty, 0.5, 1.0]), np.array([0, 0, 17, 41])
    )
    draw_reliability(values, METRICS, tmp_path / "reliability.png")
    assert {"17", "41", "Expected calibration error 0.750 [0.500, 0.900]"} <= set(texts)


@pytest.mark.parametrize("count", [1, 4, 5])
def test_confident_mistakes_show_what_each_was_called_and_what_it_is(tmp_path, texts, count):
    rows = [
        {"file": f"{'folder/' * 9}{n}.png", "group": "g", "class": "a$", "predicted": HOSTILE[0], "confidence": 0.9}
        for n in range(count)
    ]
    images = {row["file"]: np.full((20, 20, 1 + 2 * (n % 2)), 9 * n, np.uint8) for n, row in enumerate(rows)}
    draw_mistakes(pd.DataFrame(rows), images, tmp_path / "mistakes.png")
    assert is_a_picture(tmp_path / "mistakes.png")
    assert f"{shown(HOSTILE[0])} 0.900" in texts
    assert texts.count("is a$") == count
    assert [text for text in texts if text.startswith("…") and text.endswith("/0.png") and len(text) == 38]

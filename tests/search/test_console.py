import json
from io import StringIO
from types import SimpleNamespace

import pytest
from rich.console import Console

from search import console
from search.events import Asked, EpochReported, Noted
from search.ledger import Ledger
from search.paths import StudyPaths
from search.safe_yaml import to_yaml


@pytest.fixture
def printed(monkeypatch):
    """What was printed on standard output, in 80 columns."""
    monkeypatch.setattr(console, "out", Console(file=StringIO(), width=80, highlight=False))
    return lambda: [line.rstrip() for line in console.out.file.getvalue().splitlines()]


@pytest.fixture
def paths(tmp_path):
    """A run of two trials; the second is better."""
    made = StudyPaths(tmp_path / "it")
    made.root.mkdir()
    made.study_file.write_text(to_yaml({"name": "it", "objective": {"metric": "v"}}), encoding="utf-8")
    with Ledger(made.ledger) as ledger:
        for number, value in enumerate((0.5, 0.75)):
            ledger.append(
                Asked(number, {"rate": 0.1, "kind": "[b]"}, 0), EpochReported(number, 1, {"v": value}, "complete")
            )
    return made


def test_a_line_is_printed_as_it_is_however_long(printed):
    console.say("[red]x[/] " + "y" * 100)
    assert printed() == ["[red]x[/] " + "y" * 100]


def test_a_complaint_goes_to_standard_error(monkeypatch, printed):
    monkeypatch.setattr(console, "err", Console(file=StringIO(), width=20))
    console.complain("error", "space.a[0]: must hold " + "z" * 50)
    assert console.err.file.getvalue() == "error: space.a[0]: must hold " + "z" * 50 + "\n"
    assert printed() == []


def test_rows_have_four_digits_and_missing_values_are_empty(printed):
    console.show_rows(["a", "b [x]", "c"], [{"a": 0.123456, "b": None, "c": "[/]"}, {"a": 12, "b": True, "c": ""}])
    assert [line.split() for line in printed()] == [["a", "b", "[x]", "c"], ["0.1235", "[/]"], ["12", "True"]]


def test_the_best_trial_is_shown_with_where_the_run_is(paths, printed):
    console.show_best(paths)
    assert printed() == ["best trial 1: v 0.7500 at epoch 1", "  rate 0.1, kind [b]", f"run folder {paths.root}"]


def test_a_winner_is_shown_with_its_reason(paths, printed):
    with Ledger(paths.ledger) as ledger:
        ledger.append(Noted("winner", {"number": 0, "reason": "best mean v", "parameters": {"rate": 0.1}}))
    console.show_best(paths)
    assert printed()[2:4] == ["winner: trial 0; best mean v", "  rate 0.1"]


def test_a_winner_that_was_named_before_an_extension_is_said_to_be(paths, printed):
    with Ledger(paths.ledger) as ledger:
        ledger.append(Noted("winner", {"number": 0, "reason": "best mean v", "parameters": {"rate": 0.1}}))
        ledger.append(Asked(2, {"rate": 0.2, "kind": "a"}, 0), EpochReported(2, 1, {"v": 0.9}, "complete"))
    console.show_best(paths)
    assert f"  named before the search went on; `thawline retrain {paths.root}` names it anew" in printed()


def test_test_scores_are_shown_with_intervals_and_the_files_that_hold_them(paths, printed):
    figures = paths.final / "figures"
    figures.mkdir(parents=True)
    (figures / "roc.png").touch()
    (paths.final / "metrics.json").write_text(
        json.dumps(
            {
                "counts": {"images": {"test": {"a": 3, "b": 4}}, "groups": {"test": 5}},
                "balanced_accuracy": {"value": 0.91234, "interval": [0.8, 0.95]},
                "f1": {"value": None, "interval": None},
                "threshold": 0.5,
            }
        )
    )
    console.show_final(paths)
    lines = printed()
    assert lines[0] == "locked test set: 7 images of 5 groups"
    assert [line.split() for line in lines[1:4]] == [
        ["metric", "value", "95", "%", "interval"],
        ["balanced_accuracy", "0.9123", "0.8", "to", "0.95"],
        ["f1", "none", "none", "to", "none"],
    ]
    assert [line.strip() for line in lines[5:]] == [
        str(path) for path in (paths.ledger, paths.study_file, paths.final / "metrics.json", figures / "roc.png")
    ]


def data_check(**more):
    return SimpleNamespace(
        **{
            "images_by_class": {"COVID": 3, "[other]": 2},
            "modes_by_class": {"COVID": {"L": 2, "RGB": 1}, "[other]": {"L": 2}},
            "formats_by_class": {"COVID": {"PNG": 3}, "[other]": {"JPEG": 2}},
            "width": SimpleNamespace(smallest=53, largest=1408, median=400),
            "height": SimpleNamespace(smallest=50, largest=90, median=70),
            "imbalance_ratio": 1.5,
            "exact_duplicates": [1],
            "near_duplicates": [],
            "split": {"train": {"images": 4, "groups": 4, "classes": {"COVID": 2, "[other]": 2}}},
            "unreadable": [],
            "straddling": [],
            "warnings": [],
            "problems": [],
        }
        | more
    )


def test_what_was_found_about_images_is_shown_class_by_class(printed):
    console.show_data_check(data_check())
    lines = [line.split() for line in printed()]
    assert lines[:3] == [
        ["class", "images", "modes", "formats"],
        ["COVID", "3", "2", "L,", "1", "RGB", "3", "PNG"],
        ["[other]", "2", "2", "L", "2", "JPEG"],
    ]
    assert ["train", "4", "4", "2", "2"] in lines
    assert lines[-1] == ["a", "search", "may", "start"]


def test_classes_may_be_called_like_columns(printed):
    by_class = {"images": 3, "groups": 2}
    none = {name: {} for name in by_class}
    split = {"train": {"images": 4, "groups": 4, "classes": {"images": 3, "groups": 1}}}
    console.show_data_check(
        data_check(images_by_class=by_class, modes_by_class=none, formats_by_class=none, split=split)
    )
    assert ["train", "4", "4", "3", "1"] in [line.split() for line in printed()]


def test_images_that_cannot_be_used_are_listed_and_no_search_may_start(printed):
    files = [SimpleNamespace(file=f"a[{number}].png", reason="truncated") for number in range(23)]
    check = data_check(unreadable=files, straddling=[[("x.png", "train"), ("y.png", "test")]], problems=["no"])
    console.show_data_check(check)
    lines = printed()
    assert "unreadable: 23" in lines
    assert "  a[19].png: truncated" in lines
    assert "  and 3 more" in lines
    assert "  x.png (train), y.png (test)" in lines
    assert "a search may start" not in lines

"""`thawline report` and `thawline compare` as a user types them."""

import sys

import pytest

from search import cli, console
from search.events import Asked, EpochReported, SessionOpened
from tests.fakes.drawn_study import Drawing, draw_run, write_events


@pytest.fixture
def thawline(tmp_path, monkeypatch, capsys):
    """Runs a command in this process and an empty folder; its exit code, standard output and standard error."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(console.out, "width", 200)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["thawline", *map(str, arguments)])
        code = cli._exit_code()
        return code, *capsys.readouterr()

    return run


def test_report_writes_one_file_into_the_run(thawline, tmp_path):
    draw_run(tmp_path / "runs" / "lungs")
    assert thawline("report", "lungs") == (0, "wrote runs/lungs/report.html\n", "")
    page = (tmp_path / "runs" / "lungs" / "report.html").read_text(encoding="utf-8")
    assert page.startswith("<!doctype html>")
    assert "Is the best at an edge of the space?" in page


@pytest.mark.parametrize(("unit", "told"), [("stage", False), ("block", True)])
def test_report_knows_where_the_backbone_ends(thawline, tmp_path, unit, told):
    only = {"freeze_depth": {"type": "int", "low": 4, "high": 5}}
    settings = {"space": only, "model": {"architecture": "resnet50", "freeze_unit": unit}}
    root = draw_run(tmp_path / "runs" / "deep", Drawing(evaluated=False, settings=settings))
    events = [
        SessionOpened("host", 1),
        Asked(0, {"freeze_depth": 5}, 0),
        EpochReported(0, 1, {"val_auc": 0.9}, "complete"),
    ]
    write_events(root / "study.db", enumerate(events))
    thawline("report", "deep")
    sentence = "freeze_depth: the best value, 5, lies at the high end"
    assert (sentence in (root / "report.html").read_text(encoding="utf-8")) is told


def test_report_writes_where_asked_and_opens_it_when_told(thawline, tmp_path, monkeypatch):
    opened = []
    monkeypatch.setattr("typer.launch", opened.append)
    draw_run(tmp_path / "runs" / "lungs")
    code, out, _ = thawline("report", "lungs", "--output", "made/r.html", "--open")
    assert (code, out) == (0, "wrote made/r.html\n")
    assert opened == [(tmp_path / "made" / "r.html").as_uri()]


def test_compare_prints_a_column_for_each_run_and_writes_a_page(thawline, tmp_path):
    draw_run(tmp_path / "runs" / "first")
    draw_run(tmp_path / "runs" / "second", Drawing(trials=12, seed=1))
    code, out, err = thawline("compare", "first", "second")
    assert (code, err) == (0, "")
    lines = [line.split() for line in out.splitlines()]
    assert lines[0] == ["first", "second"]
    assert ["budget.trials", "24", "12"] in lines
    assert ["test", "AUC", "0.800", "[0.700,", "0.900]", "0.800", "[0.700,", "0.900]"] in lines
    assert lines[-1] == ["wrote", "comparison.html"]
    assert "Studies side by side" in (tmp_path / "comparison.html").read_text(encoding="utf-8")


def test_compare_warns_of_other_images(thawline, tmp_path):
    draw_run(tmp_path / "runs" / "first")
    draw_run(tmp_path / "runs" / "second", Drawing(settings={"record": {"data": {"fingerprint": "0" * 64}}}))
    code, _, err = thawline("compare", "first", "second", "--output", "c.html")
    assert code == 0
    assert err.startswith("warning: The runs did not see the same images in the same parts")


@pytest.mark.parametrize(
    ("runs", "problem"),
    [(["first"], "a comparison needs two runs or more, but got 1"), (["first", "gone", "lost"], "gone: must be a run")],
)
def test_compare_refuses_before_it_reads_anything(thawline, tmp_path, runs, problem):
    draw_run(tmp_path / "runs" / "first")
    code, out, err = thawline("compare", *runs)
    assert (code, out) == (2, "")
    assert problem in err
    assert ("lost: must be" in err) == ("lost" in runs)
    assert not (tmp_path / "comparison.html").exists()


def test_compare_shows_nothing_that_a_terminal_cannot(thawline, tmp_path):
    draw_run(tmp_path / "runs" / "first", Drawing(trials=300, evaluated=False))
    draw_run(tmp_path / "runs" / "second")
    _, out, _ = thawline("compare", "first", "second")
    assert "\\u" not in out
    assert "\\x" not in out
    epochs = next(line.split() for line in out.splitlines() if line.strip().startswith("epochs"))
    assert int(epochs[1]) > 1000


def test_compare_refuses_a_run_that_is_named_twice(thawline, tmp_path):
    draw_run(tmp_path / "runs" / "first")
    code, _, err = thawline("compare", "first", "runs/first")
    assert code == 2
    assert err == "error: runs/first: a comparison needs different runs, but this one was named before\n"

import json
import math
from contextlib import suppress

import pytest

from search.errors import StudyStopped
from search.events import Asked, EpochReported, Noted
from search.history import History
from search.interruption import Interrupted
from search.view.json_events import JsonEvents


def spoken(capsys):
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_every_event_is_an_object_with_its_kind_and_all_that_it_says(small_config, small_events, capsys):
    study = History()
    view = JsonEvents()
    view.watch(small_config, study)
    for seconds, event in enumerate([*small_events[:4], Noted("winner", {"number": 0})]):
        study.apply(float(seconds), event)
        view.happened(event)
    assert spoken(capsys) == [
        {
            "kind": "study",
            "name": "it",
            "metric": "v",
            "direction": "maximize",
            "trials": 4,
            "epochs": 3,
            "wall_seconds": None,
            "used_seconds": 0.0,
        },
        {"kind": "session_opened", "host": "host", "process": 1, "used_seconds": 0.0},
        {
            "kind": "asked",
            "number": 0,
            "parameters": {"rate": 0.00123456, "kind": "a"},
            "seed": 0,
            "origin": "sampler",
            "repeat": 0,
            "used_seconds": 1.0,
        },
        {"kind": "started", "number": 0, "repeat": 0, "worker": "host/1", "used_seconds": 2.0},
        {
            "kind": "epoch_reported",
            "number": 0,
            "epoch": 1,
            "metrics": {"v": 0.25},
            "verdict": "continue",
            "repeat": 0,
            "reason": None,
            "seconds": {},
            "usage": {},
            "used_seconds": 3.0,
        },
        {"kind": "noted", "topic": "winner", "facts": {"number": 0}, "used_seconds": 4.0},
    ]


def test_nan_is_null_and_a_line_break_breaks_no_line(small_config, capsys):
    view = JsonEvents()
    view.watch(small_config, History())
    view.happened(EpochReported(0, 1, {"v": math.nan}, "fail", reason="a\nb"))
    view.happened(Asked(1, {"rate": 0.5}, 0, system_attributes={"rung": 1}))
    _, epoch, asked = spoken(capsys)
    assert (epoch["metrics"], epoch["reason"]) == ({"v": None}, "a\nb")
    assert "system_attributes" not in asked


def test_a_step_is_told_when_it_begins_and_ends_and_once_a_second_between(monkeypatch, capsys):
    now = iter([0.0, 0.5, 1.0, 1.0, 1.2, 1.3])
    monkeypatch.setattr("search.view.json_events.time.monotonic", lambda: next(now))
    view = JsonEvents()
    for done in (0, 1, 2, 3):
        view.preparing("checking images", done, 3)
    assert [(each["what"], each["done"], each["of"]) for each in spoken(capsys)] == [
        ("checking images", 0, 3),
        ("checking images", 2, 3),
        ("checking images", 3, 3),
    ]


@pytest.mark.parametrize(
    ("error", "outcome", "reason"),
    [
        (None, "done", None),
        (Interrupted(2), "interrupted", "SIGINT"),
        (StudyStopped("8 trials in a row failed"), "stopped", "8 trials in a row failed"),
        (RuntimeError(), "stopped", "RuntimeError"),
    ],
)
def test_the_last_object_says_how_it_ended_and_what_was_best(
    small_config, small_events, capsys, error, outcome, reason
):
    view = JsonEvents()
    with suppress(Interrupted, StudyStopped, RuntimeError), view:
        view.watch(small_config, History((0.0, event) for event in small_events))
        if error:
            raise error
    assert spoken(capsys)[-1] == {
        "kind": "ended",
        "outcome": outcome,
        "reason": reason,
        "ended_trials": 3,
        "best": {"number": 0, "epoch": 2, "value": 0.75, "parameters": {"rate": 0.00123456, "kind": "a"}},
        "winner": None,
    }


def test_a_study_that_was_refused_ends_without_a_best(capsys):
    with JsonEvents() as view:
        view.say("a sentence")
    assert spoken(capsys) == [
        {"kind": "said", "text": "a sentence"},
        {"kind": "ended", "outcome": "done", "reason": None},
    ]


def test_a_winner_without_a_standard_error_ends_the_stream_well(small_config, capsys):
    with JsonEvents() as view:
        view.watch(small_config, History([(0.0, Noted("winner", {"number": 0, "standard_error": math.nan}))]))
    assert spoken(capsys)[-1]["winner"] == {"number": 0, "standard_error": None}

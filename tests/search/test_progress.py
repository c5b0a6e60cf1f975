import math
from contextlib import suppress
from io import StringIO

import pytest
from rich.console import Console

from search.config import StudyConfig
from search.events import Asked, EpochReported, Failed, Noted, SessionOpened, Started
from search.history import History
from search.progress import Lines, Screen, View, best_so_far, duration, shown, sparkline, study_screen

CONFIG = StudyConfig.parse(
    {
        "name": "it",
        "objective": {"metric": "v"},
        "budget": {"trials": 4, "epochs": 3},
        "space": {
            "rate": {"type": "float", "low": 0, "high": 1},
            "kind": {"type": "choice", "values": ["a", "[/b] [red]x", "a[1].h5"]},
        },
    }
)
EVENTS = [
    SessionOpened("host", 1),
    Asked(0, {"rate": 0.00123456, "kind": "a"}, 0),
    Started(0, worker="host/1"),
    EpochReported(0, 1, {"v": 0.25}, "continue"),
    EpochReported(0, 2, {"v": 0.75}, "continue"),
    EpochReported(0, 3, {"v": 0.5}, "complete"),
    Asked(1, {"rate": 0.1, "kind": "[/b] [red]x"}, 0),
    Started(1, worker="host/2"),
    EpochReported(1, 1, {"v": 0.125}, "prune", reason="behind others at epoch 1"),
    Asked(2, {"rate": 0.2}, 0),
    Failed(2, "no [memory]"),
    Asked(3, {"rate": 0.3, "kind": "a[1].h5"}, 0),
    Started(3, worker="host/4"),
    EpochReported(3, 1, {"v": 0.0}, "continue"),
    EpochReported(3, 2, {"v": 0.125}, "continue"),
]


def history(events=EVENTS):
    return History((0.0, event) for event in events)


def drawn(parts, width=200):
    console = Console(file=StringIO(), width=width)
    for part in parts:
        console.print(part)
    return console.file.getvalue()


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ([], ""),
        ([0.5], "▁"),
        ([2, 2], "▁▁"),
        ([0, 1], "▁█"),
        ([0, 1, 2, 3, 4, 5, 6, 7], "▁▂▃▄▅▆▇█"),
        ([1, math.nan, 0, math.inf], "█·▁·"),
        ([math.nan], "·"),
    ],
)
def test_a_sparkline_has_one_character_per_value(values, line):
    assert sparkline(values) == line


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.9, "0 s"),
        (59.9, "59 s"),
        (60, "1 min 00 s"),
        (3599, "59 min 59 s"),
        (7500, "2 h 05 min"),
        (360_000, "100 h 00 min"),
    ],
)
def test_a_duration_is_said_in_its_two_largest_units(seconds, text):
    assert duration(seconds) == text


def test_values_are_shown_with_four_digits_and_everything_else_as_it_is():
    assert shown({"a": 0.000123456, "b": 3, "c": True, "d": "x y", "e": 12345.678}) == (
        "a 0.0001235, b 3, c True, d x y, e 1.235e+04"
    )


def test_the_best_so_far_is_the_first_of_equals_and_never_a_failed_trial():
    events = [
        Asked(0, {}, 0),
        EpochReported(0, 1, {"v": 0.5}, "complete"),
        Asked(1, {}, 0),
        EpochReported(1, 1, {"v": 0.5}, "continue"),
        Asked(2, {}, 0),
        EpochReported(2, 1, {"v": 0.9}, "continue"),
        EpochReported(2, 2, {"v": math.nan}, "fail"),
        Asked(3, {}, 0),
    ]
    trial, epoch, value = best_so_far(history(events).search_trials(), CONFIG)
    assert (trial.number, epoch, value) == (0, 1, 0.5)
    assert best_so_far(history(events[-1:]).search_trials(), CONFIG) is None


def test_the_screen_says_how_far_the_study_is_what_is_best_what_runs_and_what_failed():
    text = drawn(study_screen(CONFIG, history(), used_seconds=3725.0))
    for part in (
        "it  6 epochs in 1 h 02 min",
        "3 of 4 trials",
        "1 completed, 1 pruned, 1 failed, 1 running",
        "trial 2 failed: no [memory]",
    ):
        assert part in text
    [best] = [line for line in text.splitlines() if "best 0" in line]
    assert best.split() == ["best", "0", "2/3", "0.7500", "▁█▅", "0.001235", "a"]
    [running] = [line for line in text.splitlines() if "trial 3" in line]
    assert running.split() == ["trial", "3", "2/3", "0.1250", "▁█", "0.3", "a[1].h5"]


@pytest.mark.parametrize("columns", [1, 7])
def test_brackets_in_values_are_shown_and_are_no_markup(columns):
    space = {name: {"type": "choice", "values": [0]} for name in ("kind", "[red]b", "c", "d", "e", "f", "g")[:columns]}
    config = CONFIG.model_copy(update={"space": StudyConfig.parse({"space": space}).space})
    text = drawn(study_screen(config, history(EVENTS[:8])))
    assert "[/b] [red]x" in text
    assert "[red]b" in text or columns == 1 or "rate 0.1" in text


def test_time_that_is_left_is_shown_where_time_is_limited():
    config = CONFIG.model_copy(update={"budget": CONFIG.budget.model_copy(update={"wall_seconds": 100.0})})
    assert "1 min 05 s left" in drawn(study_screen(config, history(), used_seconds=35.0))
    assert "0 s left" in drawn(study_screen(config, history(), used_seconds=135.0))
    assert "left" not in drawn(study_screen(CONFIG, history()))


def test_trials_that_ran_wait_when_no_driver_is_at_work():
    text = drawn(study_screen(CONFIG, history(), at_work=False))
    assert "1 completed, 1 pruned, 1 failed, 1 waiting" in text
    assert "trial 3" not in text


def test_an_empty_study_can_be_drawn():
    assert "0 of 4 trials" in drawn(study_screen(CONFIG, history([])))


def test_reruns_and_the_winner_are_shown_when_there_are_any():
    events = [*EVENTS[:6], Asked(0, {"rate": 0.1}, 0, "rerun", 1), Started(0, 1)]
    text = drawn(study_screen(CONFIG, history(events)))
    assert "trial 0.1 " in text
    assert "0 of 2 reruns" in text
    noted = [*events, Noted("winner", {"number": 0, "reason": "best mean v"})]
    assert "winner: trial 0; best mean v" in drawn(study_screen(CONFIG, history(noted)))


def test_a_narrow_terminal_does_not_break_the_screen():
    assert len(drawn(study_screen(CONFIG, history()), width=30).splitlines()) < 40


def lines(view, capsys, events):
    view.watch(CONFIG, History())
    for event in events:
        view.happened(event)
    return capsys.readouterr().err.splitlines()


def test_without_a_terminal_there_is_one_line_per_event(capsys):
    later = [
        EpochReported(0, 1, {}, "fail", 2, "it gave None"),
        Noted("winner", {"number": 0, "reason": "best mean v"}),
        Noted("test_opened", {"times": 2}),
        Noted("other", {}),
    ]
    written = lines(Lines(), capsys, [*EVENTS[:11], *later])
    assert written == [
        "trial 0 asked: rate 0.001235, kind a",
        "trial 0 epoch 1: v 0.2500",
        "trial 0 epoch 2: v 0.7500",
        "trial 0 epoch 3: v 0.5000, completed",
        "trial 1 asked: rate 0.1, kind [/b] [red]x",
        "trial 1 epoch 1: v 0.1250, pruned (behind others at epoch 1)",
        "trial 2 asked: rate 0.2",
        "trial 2 failed: no [memory]",
        "trial 0.2 epoch 1: v nan, failed (it gave None)",
        "winner: trial 0; best mean v",
        "test set opened, time 2",
        "noted other",
    ]


def test_a_step_is_one_line_when_it_is_done(capsys):
    view = Lines()
    for done in range(3):
        view.preparing("checking images", done, 2)
    view.preparing("starting Ray", 0, 1)
    view.preparing("starting Ray", 1, 1)
    assert capsys.readouterr().err.splitlines() == ["checking images: 2 done", "starting Ray: done"]


def test_quiet_is_quiet(capsys):
    assert lines(View(), capsys, EVENTS) == []
    View().say("it")
    View().preparing("it", 1, 1)
    assert capsys.readouterr() == ("", "")


def test_the_live_screen_shows_steps_and_events_and_ends_with_what_was_reached():
    console = Console(file=StringIO(), force_terminal=True, color_system=None, width=200)
    study = History()
    with Screen(console) as view:
        view.preparing("decoding images", 3, 9)
        assert drawn([view._render()]).split()[:2] == ["decoding", "images"]
        assert "3 of 9" in drawn([view._render()])
        view.preparing("starting Ray", 0, 1)
        assert "starting Ray …" in drawn([view._render()])
        view.preparing("starting Ray", 1, 1)
        view.watch(CONFIG, study)
        for event in EVENTS:
            study.apply(0.0, event)
            view.happened(event)
        view.say("a [bold] sentence [/x]")
        assert "3 of 4 trials" in drawn([view._render()])
        assert "starting Ray" not in drawn([view._render()])
    assert "a [bold] sentence [/x]" in console.file.getvalue()


@pytest.mark.parametrize("error", [None, RuntimeError("stopped")])
def test_the_last_screen_stays_unless_the_study_came_to_a_good_end(error):
    console = Console(file=StringIO(), force_terminal=True, color_system=None, width=200)
    with suppress(RuntimeError), Screen(console) as view:
        view.watch(CONFIG, history())
        if error:
            raise error
    erased = "\x1b[2K"
    last = console.file.getvalue().rsplit("3 of 4 trials", 1)[1]
    assert (last.count(erased) > 2) is (error is None)

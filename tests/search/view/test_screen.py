from contextlib import suppress
from io import StringIO

import pytest
from rich.console import Console

from search.events import Asked, EpochReported, Started
from search.history import History
from search.view.screen import Screen


def terminal(height=25):
    return Console(file=StringIO(), force_terminal=True, color_system=None, width=200, height=height)


def drawn(view, height=25):
    console = Console(file=StringIO(), width=200, height=height)
    console.print(view.draw())
    return console.file.getvalue()


def of(events):
    return History((0.0, event) for event in events)


def test_the_live_screen_shows_steps_and_events_and_ends_with_what_was_reached(small_config, small_events):
    console, study = terminal(), History()
    with Screen(console) as view:
        view.preparing("decoding images", 3, 9)
        assert drawn(view).split()[:2] == ["decoding", "images"]
        assert "3 of 9" in drawn(view)
        view.preparing("starting Ray", 0, 1)
        assert "starting Ray …" in drawn(view)
        view.preparing("starting Ray", 1, 1)
        view.watch(small_config, study)
        for event in small_events:
            study.apply(0.0, event)
            view.happened(event)
        view.say("a [bold] sentence [/x]")
        assert "3 of 4 trials" in drawn(view)
        assert "starting Ray" not in drawn(view)
    assert "a [bold] sentence [/x]" in console.file.getvalue()


@pytest.mark.parametrize("error", [None, RuntimeError("stopped")])
def test_the_last_screen_stays_unless_the_study_came_to_a_good_end(small_config, small_events, error):
    console = terminal()
    with suppress(RuntimeError), Screen(console) as view:
        view.watch(small_config, of(small_events))
        if error:
            raise error
    erased = "\x1b[2K"
    last = console.file.getvalue().rsplit("3 of 4 trials", 1)[1]
    assert (last.count(erased) > 2) is (error is None)


def test_time_goes_on_while_somebody_is_at_work_from_when_the_last_event_came(small_config, small_events):
    view = Screen(terminal())
    view.watch(small_config, of(small_events), age=125.0)
    assert "it  0 s used" in drawn(view)
    view.at_work = True
    assert "it  2 min 05 s used" in drawn(view)


@pytest.mark.parametrize("height", [24, 18, 40])
def test_a_screen_of_many_running_trials_is_no_higher_than_the_terminal(small_config, small_events, height):
    many = [event for number in range(4, 40) for event in (Asked(number, {"rate": 0.5}, 0), Started(number))]
    view = Screen(terminal())
    view.watch(small_config, of([*small_events, *many, EpochReported(39, 1, {"v": 0.5}, "prune", reason="late")]))
    view.at_work = True
    view.preparing("stopping", 0, 1)
    text = drawn(view, height).splitlines()
    assert len(text) < height
    assert any("more are running" in line for line in text)
    assert "stopping" in text[-1]


def test_what_takes_long_to_draw_is_drawn_seldom(monkeypatch):
    now = [100.0]
    monkeypatch.setattr("search.view.screen.time.monotonic", lambda: now[0])
    view, drawings = Screen(terminal()), []

    def draw():
        drawings.append(now[0])
        now[0] += 0.5
        return "it"

    monkeypatch.setattr(view, "draw", draw)
    for _ in range(40):
        view._render()
        now[0] += 0.5
    assert drawings == [100.0, 110.5]

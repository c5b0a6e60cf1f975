import json
from dataclasses import asdict

import pytest

from search.events import Asked, EpochReported, SessionOpened, Started
from search.launch import launch
from search.launch.door import Unreachable
from search.launch.launch import DoorLost, read_along
from search.launch.replay import Replay, read_events
from search.ledger import Ledger
from search.view.progress import Lines, View


def line(kind, **values):
    return json.dumps({"kind": kind, **values}).encode() + b"\n"


def told(event, used):
    values = {name: value for name, value in asdict(event).items() if name != "system_attributes"}
    return line(event.kind, **values, used_seconds=used)


BUDGET = {"name": "it", "metric": "v", "direction": "maximize", "trials": 9, "epochs": 5, "wall_seconds": None}


@pytest.fixture
def log(small_events):
    """What a job prints of the small study, an event each second."""
    events = b"".join(told(event, float(second)) for second, event in enumerate(small_events))
    return (
        b"Running entrypoint for job thawline-it-1: python -m search.cli\n"
        + line("step", what="checking images", done=1, of=1)
        + line("study", **BUDGET, used_seconds=0.0)
        + events
        + b"Traceback: caf\xc3\xa9 \x1b[2J\n"
        + line("ended", outcome="stopped", reason="enough")
    )


class Recorder(View):
    def __init__(self):
        self.events, self.said, self.steps = [], [], []

    def happened(self, event):
        self.events.append(event)

    def say(self, text):
        self.said.append(text)

    def preparing(self, what, done, of):
        self.steps.append((what, done, of))


@pytest.mark.parametrize("size", [1, 7, 1000, 100_000])
def test_a_log_in_pieces_of_any_size_is_told_as_it_happened(log, small_config, small_events, size):
    view = Recorder()
    replay = Replay(view, small_config)
    for start in range(0, len(log), size):
        replay.take(log[start : start + size])
    replay.close()
    assert view.events == small_events
    assert view.steps == [("checking images", 1, 1)]
    assert view.said == ["Traceback: café �[2J"]
    assert (replay.outcome, replay.reason, replay.seen) == ("stopped", "enough", len(log))
    assert [trial.status for trial in view.history.search_trials()] == ["completed", "pruned", "failed", "running"]
    assert view.history.used_seconds == len(small_events) - 1
    assert (view.config.budget.trials, view.config.budget.epochs) == (9, 5)


def test_lines_of_a_job_are_those_of_a_search_here(log, small_config, capsys):
    replay = Replay(Lines(), small_config)
    replay.take(log)
    assert "trial 1 epoch 1: v 0.1250, pruned (behind others at epoch 1)\n" in capsys.readouterr().err


def test_what_earlier_jobs_did_is_known_and_not_told_again(tmp_path, small_config):
    with Ledger(tmp_path / "study.db") as ledger:
        for event in (
            SessionOpened("head", 1),
            Asked(0, {"rate": 0.5}, 0),
            Started(0, worker="head/5"),
            EpochReported(0, 1, {"v": 0.5}, "continue"),
            SessionOpened("head", 2),
            Started(0, worker="head/6"),
        ):
            ledger.append(event)
    view = Recorder()
    replay = Replay(view, small_config, read_events(tmp_path / "study.db"))
    now = [SessionOpened("head", 2), Started(0, worker="head/6"), EpochReported(0, 2, {"v": 0.75}, "continue")]
    replay.take(b"".join(told(event, 10.0 + second) for second, event in enumerate(now)))
    assert view.events == now
    [trial] = view.history.search_trials()
    assert (trial.attempts, [epoch.epoch for epoch in trial.epochs]) == (2, [1, 2])


def test_no_ledger_is_no_history(tmp_path):
    assert read_events(tmp_path / "study.db") == []


class Tunnel:
    """A door that closes after so many bytes, each time it is gone through, and then for good or not."""

    def __init__(self, log, pieces):
        self.log, self.pieces = log, list(pieces)

    def follow(self, submission, seen):
        if not self.pieces:
            raise Unreachable("nothing answers")
        rest, size = self.log[seen:], self.pieces.pop(0)
        yield rest[:size]
        if len(rest) > size:
            raise Unreachable("the connection was lost")


def test_f53_connections_that_drop_cost_nothing_and_tell_nothing_twice(log, small_config, small_events, monkeypatch):
    monkeypatch.setattr(launch, "PAUSES", (0.0,))
    view = Recorder()
    replay = Replay(view, small_config)
    read_along(Tunnel(log, [100, 0, 333, 1, 10**6]), "thawline-it-1", replay, view.say)
    assert view.events == small_events
    assert view.said.count("the connection was lost; it is tried again, the job goes on meanwhile") == 3


def test_a_door_that_stays_closed_is_not_waited_for_for_ever(log, small_config, monkeypatch):
    monkeypatch.setattr(launch, "PAUSES", (0.0,))
    monkeypatch.setattr(launch, "LOST_SECONDS", 0.0)
    view = Recorder()
    with pytest.raises(DoorLost, match="the job goes on there"):
        read_along(Tunnel(log, [100]), "thawline-it-1", Replay(view, small_config), view.say)

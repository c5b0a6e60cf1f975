"""F20, F34: the wall budget counts only time in which a driver ran, and no clock orders anything."""

import datetime
import time
from types import SimpleNamespace

import pytest
import soak

from search import ledger as ledger_module
from search.events import Asked, EpochReported, SessionOpened, Started, TrialKey
from search.ledger import Ledger, read_history
from search.paths import StudyPaths
from search.recovery import read_entries
from search.study import Study


class Clock:
    """Seconds that pass only when a test says so; both clocks can be set back."""

    def __init__(self, monkeypatch):
        self.now, self.wall = 1000.0, 1.8e9
        fake = SimpleNamespace(monotonic=lambda: self.now, time=lambda: self.wall)
        monkeypatch.setattr(ledger_module, "time", fake)


@pytest.fixture
def clock(monkeypatch):
    return Clock(monkeypatch)


@pytest.fixture
def path(memory):
    return memory / "study.db"


def test_f20_used_time_stands_still_while_no_driver_runs(path, clock):
    with Ledger(path) as ledger:
        ledger.append(SessionOpened("host", 1))
        clock.now += 60
        ledger.append(Asked(0, {}, 0))
        clock.now += 5
        assert ledger.elapsed == 65
    clock.now += 3600
    with Ledger(path) as ledger:
        ledger.append(SessionOpened("host", 1))
        assert ledger.elapsed == 60  # nothing was recorded after that
        clock.now += 30
        ledger.append(Asked(1, {}, 0))
        assert ledger.elapsed == 90
    assert [trial.asked_at for trial in read_history(path).search_trials()] == [60, 90]


def test_f20_a_driver_killed_at_half_its_budget_has_the_other_half_left(path, clock):
    config = soak.study(path.parent, 1, budget={"trials": 100, "epochs": 3, "wall_seconds": 100})

    def session(seconds):
        with Ledger(path) as ledger:
            ledger.append(SessionOpened("host", 1))
            source, began, asked = Study(config, ledger), clock.now, 0
            while clock.now < began + seconds and (request := source.ask()):
                ledger.append(EpochReported(request.key.number, 1, {"v": 0.5}, "complete"))
                clock.now += 10
                asked += 1
        return asked

    assert session(50) == 5
    clock.now += 1e6  # nobody works
    assert session(1e9) in (5, 6)  # the last 10 s before the kill were not recorded
    assert session(1e9) in (0, 1)


def test_f34_a_clock_that_steps_back_orders_nothing_differently(path, clock):
    with Ledger(path) as ledger:
        ledger.append(SessionOpened("host", 1), Asked(0, {}, 0))
        clock.wall -= 7200
        ledger.append(EpochReported(0, 1, {"v": 0.1}, "continue"))
        clock.wall -= 7200
        ledger.append(EpochReported(0, 2, {"v": 0.2}, "complete"))
    [trial] = read_history(path).search_trials()
    assert [epoch.metrics["v"] for epoch in trial.epochs] == [0.1, 0.2]
    times = [entry.at for entry in read_entries(path)]
    assert times == sorted(times, reverse=True)  # so the clock really did


def test_f34_another_machine_that_has_just_booted_orders_nothing_differently(path, clock):
    with Ledger(path) as ledger:
        ledger.append(SessionOpened("host", 1), Asked(0, {}, 0))
    clock.now = -5e6
    with Ledger(path) as ledger:
        ledger.append(SessionOpened("other", 1))
        clock.now += 2
        ledger.append(Asked(1, {}, 0), Started(0))
    history = read_history(path)
    assert [trial.number for trial in history.search_trials()] == [0, 1]
    assert history.trials[TrialKey(0)].started_at == 2


def test_f34_events_of_one_instant_keep_their_order(path, clock):
    with Ledger(path) as ledger:
        ledger.append(*(Asked(number, {}, 0) for number in (3, 1, 2)))
        ledger.append(Asked(0, {}, 0))
    assert [trial.number for trial in read_history(path).search_trials()] == [3, 1, 2, 0]


def test_f34_a_study_whose_clock_steps_back_between_sessions_ends_as_any_other(memory, monkeypatch):
    config = soak.study(memory, 9)
    assert soak.fork_driver(config, soak.Kill(0.02, at_work=True)).told
    real = time.time
    at = datetime.datetime.now(datetime.UTC).timestamp()

    def set_back():
        monkeypatch.setattr(time, "time", lambda: real() - 7200)

    assert soak.fork_driver(config, prepare=set_back).status == 0
    assert min(entry.at for entry in read_entries(memory / "it" / "study.db")) < at - 7000
    assert soak.outline(StudyPaths(memory / "it"), config) == soak.uninterrupted(9)

import math

import pytest

from search.events import Asked, EpochReported, Failed, SessionOpened, Started
from search.history import History
from search.view.standing import (
    FeatureUse,
    Pace,
    best_so_far,
    epochs_at_most,
    feature_use,
    hosts,
    last_with,
    memory,
    pace,
    seconds_left,
)


def untimed(events):
    return History((0.0, event) for event in events).search_trials()


def test_the_best_so_far_is_the_first_of_equals_and_never_a_failed_trial(small_config):
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
    trial, epoch, value = best_so_far(untimed(events), small_config)
    assert (trial.number, epoch, value) == (0, 1, 0.5)
    assert best_so_far(untimed(events[-1:]), small_config) is None


TIMED = [
    (0.0, SessionOpened("left", 1)),
    (100.0, Asked(0, {}, 0)),
    (100.0, Started(0, worker="left/7")),
    (150.0, EpochReported(0, 1, {"v": 0.5}, "continue", usage={"memory_bytes": 5.0})),
    (200.0, EpochReported(0, 2, {"v": 0.6}, "complete", usage={"memory_bytes": 7.0})),
    (200.0, Asked(1, {}, 0)),
    (200.0, Started(1, worker="left/7")),
    (200.0, Asked(2, {}, 0)),
    (200.0, Started(2, worker="right/8")),
    (300.0, EpochReported(1, 1, {"v": 0.1}, "prune", reason="behind")),
    (300.0, EpochReported(2, 1, {"v": 0.1}, "continue", usage={"memory_bytes": 9.0})),
]


def timed(count=None):
    return list(History(TIMED[:count]).trials.values())


def test_epochs_at_most_are_those_of_ended_trials_and_all_that_others_may_have():
    assert epochs_at_most([], wanted=4, epochs=3) == 12
    assert epochs_at_most(timed(), wanted=4, epochs=3) == 2 + 1 + 3 + 3
    assert epochs_at_most(timed(), wanted=1, epochs=3) == 2 + 1 + 3


def test_the_pace_is_that_of_the_last_ten_minutes_since_the_first_trial_started():
    assert pace(timed(), used=300.0) == Pace(epochs=4 / 200, trials=2 / 200)
    assert pace(timed(), used=750.0) == Pace(epochs=3 / 600, trials=2 / 600)
    assert pace(timed(), used=10_000.0) is None
    assert pace(timed(2), used=300.0) is None


def test_what_is_left_is_guessed_from_the_trials_that_have_ended():
    assert seconds_left(timed(), wanted=6, used=300.0) == pytest.approx(200 / 2 * 4)
    assert seconds_left(timed(), wanted=2, used=300.0) == 0
    assert seconds_left(timed(4), wanted=6, used=150.0) is None


def test_the_last_trial_with_a_status_is_the_one_that_got_it_last():
    events = [*TIMED, (400.0, EpochReported(2, 2, {"v": 0.1}, "prune", reason="late"))]
    trials = list(History([*events, (500.0, Asked(3, {}, 0)), (500.0, Failed(3, "broken"))]).trials.values())
    assert (last_with(trials, "pruned").number, last_with(trials, "failed").number) == (2, 3)
    assert last_with(timed(), "failed") is None


def test_machines_and_memory_are_those_of_running_trials():
    running = [trial for trial in timed() if trial.status == "running"]
    assert hosts(running) == {"right": 1}
    assert memory(running) == 9.0
    assert memory(timed(3)) == 0


def test_the_use_of_features_is_summed_and_its_bytes_are_the_latest():
    def told(found, built, held):
        return {"features_found": found, "features_built": built, "features_bytes": held}

    events = [
        (0.0, Asked(0, {}, 0)),
        (0.0, Asked(1, {}, 0)),
        (1.0, EpochReported(0, 1, {}, "continue", usage=told(0, 2, 100.0))),
        (2.0, EpochReported(0, 2, {}, "continue", usage=told(1, 0, 100.0))),
        (3.0, EpochReported(1, 1, {}, "continue", usage=told(2, 1, 300.0))),
        (4.0, EpochReported(0, 3, {}, "continue")),
    ]
    assert feature_use(History(events).trials.values()) == FeatureUse(found=3, built=3, bytes=300.0)
    assert feature_use(timed()) is None

import math
from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from analysis.depth import (
    Comparison,
    Cost,
    compare_at_epoch,
    compare_at_train_seconds,
    costs,
    leading,
    seconds_of_completed,
    seconds_of_first_epochs,
)
from search.config import Objective
from search.events import Asked, EpochReported
from search.history import History

AUC = Objective(metric="val_auc")
LOSS = Objective(metric="val_auc", direction="minimize")


def trials(*runs):
    """Trials from (parameters, values of the epochs, train seconds of each)."""
    events = []
    for number, (parameters, values, seconds) in enumerate(runs):
        events.append(Asked(number, parameters, number))
        events += [
            EpochReported(number, epoch, {"val_auc": value}, "continue", seconds={"train": seconds, "setup": 100.0})
            for epoch, value in enumerate(values, start=1)
        ]
    return History((0.0, event) for event in events).search_trials()


TRIALS = trials(
    ({"freeze_depth": 4}, [0.6, 0.5, 0.9], 10.0),
    ({"freeze_depth": 0}, [0.1], 40.0),
    ({"freeze_depth": 4}, [0.8, 0.7, 0.7], 10.0),
    ({"freeze_depth": 2}, [0.3, 0.4], 20.0),
    ({"freeze_depth": 4}, [0.4, 0.6], 10.0),
    ({}, [0.99, 0.99, 0.99], 1.0),
    ({"freeze_depth": 5}, [math.nan, math.nan], 1.0),
    ({"freeze_depth": 5}, [], 1.0),
)


def test_at_an_epoch_trials_have_their_best_so_far_and_settings_rise():
    comparison = compare_at_epoch(TRIALS, AUC, 1)
    assert_array_equal(comparison.setting, [4, 0, 4, 2, 4])
    assert_array_equal(comparison.value, [0.6, 0.1, 0.8, 0.3, 0.4])
    assert_array_equal(comparison.settings, [0, 2, 4])
    assert_array_equal(comparison.count, [1, 1, 3])
    assert_allclose(comparison.mean, [0.1, 0.3, 0.6])


def test_trials_that_ended_before_the_epoch_are_left_out():
    comparison = compare_at_epoch(TRIALS, AUC, 2)
    assert_array_equal(comparison.setting, [4, 4, 2, 4])
    assert_array_equal(comparison.value, [0.6, 0.8, 0.4, 0.6])
    assert_array_equal(compare_at_epoch(TRIALS, AUC, 3).value, [0.9, 0.8])


def test_the_interval_is_students_and_one_trial_has_none():
    comparison = compare_at_epoch(TRIALS, AUC, 1)
    assert_array_equal(np.isnan(comparison.low), [True, True, False])
    half = 4.302652729696142 * 0.2 / math.sqrt(3)  # t of 0.975 with 2 degrees of freedom; deviation of 0.6, 0.8, 0.4
    assert comparison.low[2] == pytest.approx(0.6 - half)
    assert comparison.high[2] == pytest.approx(0.6 + half)


@pytest.mark.parametrize(
    ("seconds", "values"),
    [
        (9.9, []),
        (10.0, [0.6, 0.8, 0.4]),
        (20.0, [0.6, 0.8, 0.3, 0.6]),
        (30.0, [0.9, 0.8, 0.3, 0.6]),
        (1e9, [0.9, 0.1, 0.8, 0.4, 0.6]),
    ],
)
def test_within_a_time_only_epochs_that_fit_count(seconds, values):
    assert_array_equal(compare_at_train_seconds(TRIALS, AUC, seconds).value, values)


def test_minimizing_takes_the_lowest_value():
    assert_array_equal(compare_at_epoch(TRIALS, LOSS, 3).value, [0.5, 0.7])


def test_any_number_can_be_compared():
    strengths = trials(({"augmentation_strength": 0.25}, [0.5], 1.0), ({"augmentation_strength": 0.75}, [0.6], 1.0))
    comparison = compare_at_epoch(strengths, AUC, 1, name="augmentation_strength")
    assert_array_equal(comparison.settings, [0.25, 0.75])


def test_nothing_to_compare_gives_empty_arrays():
    comparison = compare_at_epoch([], AUC, 1)
    assert comparison.settings.shape == comparison.mean.shape == comparison.low.shape == (0,)


def test_a_fair_time_lets_every_trial_finish_its_first_epoch():
    assert seconds_of_first_epochs(TRIALS) == 40.0
    assert seconds_of_first_epochs([]) is None
    assert seconds_of_first_epochs(trials(({}, [0.5], 0.0))) is None


def test_the_typical_time_is_the_median_completed_trials():
    completed = [replace(trial, status="completed") for trial in TRIALS]
    assert seconds_of_completed(completed) == 20.0
    assert seconds_of_completed(TRIALS) is None


def test_what_a_depth_costs_leaves_out_first_epochs_where_there_are_others():
    taken = costs(TRIALS)
    assert list(taken) == [0.0, 2.0, 4.0, 5.0]
    assert (taken[4.0].epoch_seconds, taken[0.0].epoch_seconds) == (10.0, 40.0)
    assert math.isnan(taken[4.0].trainable_share)
    slow_start = History(
        [
            (0.0, Asked(0, {"freeze_depth": 1}, 0)),
            (0.0, EpochReported(0, 1, {"trainable_share": 0.9}, "continue", seconds={"train": 60.0})),
            (0.0, EpochReported(0, 2, {"trainable_share": 0.9}, "continue", seconds={"train": 8.0})),
        ]
    ).search_trials()
    assert costs(slow_start) == {1.0: Cost(0.9, 8.0)}


def comparison(*settings):
    """From (mean, low, high, count) of each setting."""
    mean, low, high, count = np.array(settings, dtype=float).reshape(-1, 4).T
    places = np.arange(len(mean), dtype=float)
    return Comparison(places, mean, places, count.astype(int), mean, low, high)


NAN = math.nan


@pytest.mark.parametrize(
    ("settings", "objective", "expected"),
    [
        ([(0.5, 0.4, 0.6, 3), (0.8, 0.7, 0.9, 3)], AUC, (1, [])),
        ([(0.5, 0.4, 0.6, 3), (0.8, 0.7, 0.9, 3)], LOSS, (0, [])),
        ([(0.5, 0.4, 0.75, 3), (0.8, 0.7, 0.9, 3), (0.1, 0.0, 0.2, 2)], AUC, (1, [0.0])),
        ([(0.95, NAN, NAN, 1), (0.8, 0.7, 0.9, 3)], AUC, (1, [0.0])),
        ([(0.95, NAN, NAN, 1)], AUC, None),
        ([], AUC, None),
    ],
)
def test_a_setting_leads_only_those_whose_intervals_lie_clear_of_its_own(settings, objective, expected):
    assert leading(comparison(*settings), objective) == expected

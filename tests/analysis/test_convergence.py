import math

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from analysis.convergence import Curve, best_by_trial, best_by_worker_second, last_improvement
from search.config import Objective
from search.events import Asked, EpochReported, Failed, Started
from search.history import History

NAN = math.nan
AUC = Objective(metric="val_auc")
LOSS = Objective(metric="val_auc", direction="minimize")


def epoch(number, epoch, value, verdict="continue"):
    return EpochReported(number, epoch, {"val_auc": value}, verdict)


# Two workers: trials 0 and 1 side by side, then 2, which fails; 3 still waits.
TRIALS = History(
    [
        (0.0, Asked(0, {}, 0)),
        (1.0, Started(0)),
        (1.0, Asked(1, {}, 1)),
        (2.0, Started(1)),
        (4.0, epoch(1, 1, 0.6)),
        (5.0, epoch(0, 1, 0.5)),
        (6.0, epoch(1, 2, 0.7, "prune")),
        (9.0, epoch(0, 2, 0.4, "complete")),
        (9.0, Asked(2, {}, 2)),
        (10.0, Started(2)),
        (11.0, epoch(2, 1, NAN)),
        (14.0, Failed(2, "no memory")),
        (14.0, Asked(3, {}, 3)),
    ]
).search_trials()


def test_by_trial_there_is_one_point_per_trial_in_order_of_number():
    curve = best_by_trial(TRIALS[::-1], AUC)
    assert_array_equal(curve.spent, [1, 2, 3, 4])
    assert_array_equal(curve.value, [0.5, 0.7, NAN, NAN])
    assert_array_equal(curve.best, [0.5, 0.7, 0.7, 0.7])


def test_by_worker_second_every_worker_counts_and_so_does_a_failure():
    curve = best_by_worker_second(TRIALS, AUC)
    assert_array_equal(curve.value, [0.6, 0.5, 0.7, 0.4, NAN, NAN])
    assert_allclose(curve.spent, np.cumsum([2, 4, 2, 4, 1, 3]))
    assert curve.spent[-1] == (9 - 1) + (6 - 2) + (14 - 10)


@pytest.mark.parametrize("curve_of", [best_by_trial, best_by_worker_second])
def test_what_a_failed_trial_had_reached_is_never_the_best_but_its_seconds_count(curve_of):
    events = [(0.0, Asked(0, {}, 0)), (0.0, Started(0)), (5.0, epoch(0, 1, 0.95)), (9.0, Failed(0, "no memory"))]
    events += [(9.0, Asked(1, {}, 1)), (9.0, Started(1)), (19.0, epoch(1, 1, 0.91, "complete"))]
    curve = curve_of(History(events).search_trials(), AUC)
    assert np.nanmax(curve.best) == curve.best[-1] == 0.91
    assert best_by_worker_second(History(events).search_trials(), AUC).spent[-1] == 19.0


@pytest.mark.parametrize("curve_of", [best_by_trial, best_by_worker_second])
def test_minimizing_the_best_never_rises(curve_of):
    curve = curve_of(TRIALS, LOSS)
    assert curve.best[-1] == 0.4
    assert np.all(np.diff(curve.best) <= 0)


@pytest.mark.parametrize("curve_of", [best_by_trial, best_by_worker_second])
def test_nothing_tried_gives_empty_arrays(curve_of):
    curve = curve_of([], AUC)
    assert curve.spent.shape == curve.value.shape == curve.best.shape == (0,)


def test_before_the_first_value_the_best_is_nan():
    failed = History([(0.0, Asked(0, {}, 0)), (0.0, Started(0)), (5.0, Failed(0, "x"))]).search_trials()
    assert_array_equal(best_by_trial(failed, AUC).best, [NAN])
    assert_array_equal(best_by_worker_second(failed, AUC).spent, [5.0])


@pytest.mark.parametrize(
    ("best", "position"),
    [([], None), ([np.nan], None), ([np.nan, 0.5, 0.5], 1), ([0.5, 0.6, 0.6, 0.7, 0.7], 3), ([0.5, 0.4], 1)],
)
def test_the_last_improvement_is_where_the_best_last_changed(best, position):
    values = np.array(best)
    assert last_improvement(Curve(values, values, values)) == position

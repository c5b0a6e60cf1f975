import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from analysis.interaction import interact
from search.config import Objective
from search.history import Epoch, TrialRecord
from search.space import FloatRange

AUC, LOSS = Objective(metric="v"), Objective(metric="v", direction="minimize")
RATE = ("learning_rate", FloatRange(type="float", low=1e-4, high=1e-2, log=True))


def trials(*points):
    """Trials from (rate, depth, value)."""
    return [
        TrialRecord(
            n, 0, {"learning_rate": rate, "freeze_depth": depth}, 0, "sampler", "completed", 0.0,
            (Epoch(1, {"v": value}, {}, 0.0),),
        )
        for n, (rate, depth, value) in enumerate(points)
    ]  # fmt: skip


TRIALS = trials((1e-4, 2, 0.6), (5e-4, 2, 0.8), (1e-2, 0, 0.5), (1e-3, 0, 0.3))


def test_cells_are_equal_on_the_ranges_own_scale_and_hold_both_ends():
    found = interact(TRIALS, AUC, RATE, parts=2)
    assert_allclose(found.edges, [1e-4, 1e-3, 1e-2])
    assert_array_equal(found.settings, [0, 2])
    assert_array_equal(found.count, [[0, 2], [2, 0]])
    assert_allclose(found.mean, [[np.nan, 0.4], [0.7, np.nan]])
    assert_array_equal(found.number, [0, 1, 2, 3])


@pytest.mark.parametrize(("objective", "best"), [(AUC, [1e-2, 5e-4]), (LOSS, [1e-3, 1e-4])])
def test_the_best_of_each_setting_is_the_objectives(objective, best):
    assert_array_equal(interact(TRIALS, objective, RATE).best_at, best)


def test_trials_without_a_value_or_a_hyperparameter_are_left_out():
    more = [TrialRecord(9, 0, {"learning_rate": 1e-3}, 0, "sampler", "completed", 0.0, TRIALS[0].epochs)]
    assert len(interact([*TRIALS, *more, *trials((1e-3, 1, float("nan")))], AUC, RATE).value) == 4
    assert interact([], AUC, RATE).mean.shape == (0, 6)

import math

import pytest
from numpy.testing import assert_allclose

from analysis.pruning import prospects, savings
from search.config import Objective
from search.history import Epoch, TrialRecord

AUC = Objective(metric="v")
LOSS = Objective(metric="v", direction="minimize")


def trial(number, status, *values, seconds=2.0):
    epochs = tuple(
        Epoch(epoch, {"v": value}, {"train": seconds, "validation": 0.5}, 0.0) for epoch, value in enumerate(values, 1)
    )
    return TrialRecord(number, 0, {}, 0, "sampler", status, 0.0, epochs)


COMPLETED = [trial(0, "completed", 0.5, 0.6, 0.9), trial(1, "completed", 0.7, 0.6, 0.75)]


def test_saved_is_what_pruned_trials_had_left_at_their_own_pace():
    saved = savings(
        [*COMPLETED, trial(2, "pruned", 0.4, seconds=1.0), trial(3, "failed", 0.4), trial(4, "running", 0.1)], 9
    )
    assert (saved.pruned, saved.epochs, saved.epochs_run) == (1, 8, 9)
    assert saved.seconds == pytest.approx(8 * 1.5)
    assert saved.seconds_run == pytest.approx(8 * 2.5 + 1.5)


def test_a_trial_that_was_pruned_without_an_epoch_saved_epochs_but_no_known_time():
    saved = savings([trial(0, "pruned")], 9)
    assert (saved.epochs, saved.seconds) == (9, 0.0)


def test_gains_are_those_after_the_same_epoch():
    (first,) = prospects([*COMPLETED, trial(2, "pruned", 0.55)], AUC)
    assert (first.number, first.epoch, first.value) == (2, 1, 0.55)
    assert first.needed == pytest.approx(0.35)
    assert_allclose(first.gains, [0.05, 0.4])
    assert first.gained_as_much == 1


def test_for_a_loss_a_gain_goes_down():
    completed = [trial(0, "completed", 0.9, 0.3), trial(1, "completed", 0.5, 0.45)]
    (first,) = prospects([*completed, trial(2, "pruned", 0.6)], LOSS)
    assert first.value == 0.6
    assert first.needed == pytest.approx(0.3)
    assert_allclose(first.gains, [0.05, 0.6])


def test_the_likeliest_comes_first():
    pruned = [trial(2, "pruned", 0.2), trial(3, "pruned", 0.6, 0.8), trial(4, "pruned", 0.55)]
    found = prospects([*COMPLETED, *pruned], AUC)
    assert [(each.number, each.gained_as_much) for each in found] == [(3, 1), (4, 1), (2, 0)]


def test_a_trial_ahead_of_all_needs_nothing():
    (first,) = prospects([*COMPLETED, trial(2, "pruned", 0.95)], AUC)
    assert first.needed == pytest.approx(-0.05)
    assert first.gained_as_much == 2


def test_completed_trials_without_a_value_until_then_say_nothing():
    (first,) = prospects([trial(0, "completed", math.nan, 0.9), trial(1, "pruned", 0.5)], AUC)
    assert first.gains.shape == (0,)
    assert first.gained_as_much == 0


def test_without_a_completed_trial_nothing_can_be_told():
    assert prospects([trial(0, "pruned", 0.5)], AUC) == []
    assert prospects([trial(0, "completed", math.nan), trial(1, "pruned", 0.5)], AUC) == []

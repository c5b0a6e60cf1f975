import math

import pytest

from analysis.contrast import contrast, outcome
from search.config import StudyConfig
from search.events import Asked, EpochReported, Noted, Started
from search.history import History

SPACE = {"freeze_depth": {"type": "int", "low": 0, "high": 5}}
WINNER = {"number": 0, "parameters": {"freeze_depth": 2}, "value": 0.8, "mean": 0.7, "standard_error": None, "seeds": 1}


def config(fingerprint="f", **document):
    record = {"data": {"fingerprint": fingerprint}, "versions": {"keras": "3"}} if fingerprint else None
    return StudyConfig.parse({"space": SPACE, "record": record, **document})


def history(*more):
    events = [
        (0.0, Asked(0, {"freeze_depth": 2}, 0)),
        (1.0, Started(0)),
        (5.0, EpochReported(0, 1, {"val_auc": 0.8}, "complete")),
        (5.0, Asked(1, {"freeze_depth": 3}, 1)),
        (6.0, Started(1)),
        (9.0, EpochReported(1, 1, {"val_auc": 0.6}, "continue")),
    ]
    return History([*events, *more])


def test_an_outcome_says_what_was_found_and_spent():
    found = outcome("a", config(), history((10.0, Noted("winner", WINNER))), {})
    assert (found.number, found.value, found.mean, found.standard_error, found.seeds) == (0, 0.8, 0.7, None, 1)
    assert (found.statuses, found.epochs) == ({"completed": 1, "running": 1}, 2)
    assert found.worker_seconds == pytest.approx(4 + 4)


def test_without_a_note_the_winner_is_the_one_that_would_be_named():
    found = outcome("a", config(), history(), {})
    assert (found.number, found.value, found.mean) == (0, 0.8, None)


def test_a_run_without_a_usable_trial_has_no_winner():
    found = outcome("a", config(), History(), {})
    assert (found.number, found.parameters, found.value, found.fingerprint) == (None, {}, None, "f")


def test_only_scores_are_taken_from_the_evaluation():
    score = {"value": 0.9, "interval": [0.8, 1.0]}
    found = outcome("a", config(), history(), {"auc": score, "validation": {"auc": score}, "threshold": 0.5})
    assert found.test == {"auc": score}


def both(first, second):
    return contrast(
        [outcome(name, c, history(), {}) for name, c in zip("ab", (first, second), strict=True)], [first, second]
    )


def test_settings_that_differ_are_named_and_equal_ones_are_not():
    found = both(config(seed=1), config(seed=2, budget={"epochs": 3}, data={"path": "x"}))
    assert found.differing == {"seed": [1, 2], "budget.epochs": [9, 3], "data.path": [None, "x"]}
    assert found.warnings == []


def test_where_a_study_lies_and_what_it_is_called_is_no_difference():
    assert both(config(name="a", storage="/a"), config(name="b", storage="/b")).differing == {}


@pytest.mark.parametrize("other", ["g", None])
def test_other_images_are_warned_of(other):
    (warning,) = both(config(), config(other)).warnings
    assert "did not see the same images" in warning
    assert f"b has fingerprint {other or 'unknown'}" in warning


def test_other_objectives_are_warned_of():
    (warning,) = both(config(), config(objective={"metric": "val_loss", "direction": "minimize"})).warnings
    assert "a by val_auc (maximize), b by val_loss (minimize)" in warning


def test_sensitivities_of_different_classes_are_warned_of():
    record = {"data": {"fingerprint": "f", "positive_class": "ill"}}
    well = {"data": {"fingerprint": "f", "positive_class": "well"}}
    assert both(config(record=record), config(record=record)).warnings == []
    (warning,) = both(config(record=record), config(record=well)).warnings
    assert warning.startswith("The runs call different classes positive (ill, well)")


def test_a_nan_from_a_fresh_choice_counts_as_none():
    found = outcome("a", config(), history((10.0, Noted("winner", {**WINNER, "mean": math.nan}))), {})
    assert found.mean is None

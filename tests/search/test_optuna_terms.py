import math

from optuna.trial import TrialState

from search.config import Objective, StudyConfig
from search.history import Epoch, TrialRecord
from search.optuna_terms import as_if_completed, distribution, frozen, state
from search.space import in_order

OBJECTIVE = Objective(metric="v")
SPACE = StudyConfig.parse(
    {
        "space": {
            "rate": {"type": "float", "low": 1e-5, "high": 1e-1, "log": True},
            "strength": {"type": "float", "low": 0.0, "high": 0.3, "step": 0.1},
            "depth": {"type": "int", "low": 0, "high": 5},
            "batch": {"type": "int", "low": 8, "high": 64, "log": True},
            "momentum": {"type": "float", "low": 0.0, "high": 0.9, "when": {"optimizer": "sgd"}},
            "optimizer": {"type": "choice", "values": ["adam", "sgd"]},
        }
    }
).space


def record(number, status, *values, **parameters):
    epochs = tuple(Epoch(epoch, {"v": value}, {}, 0.0) for epoch, value in enumerate(values, 1))
    return TrialRecord(number, 0, parameters, 0, "sampler", status, 0.0, epochs)


def test_ranges_keep_ends_steps_and_scale():
    def plain(parameter):
        found = distribution(parameter)
        return {key: getattr(found, key) for key in ("low", "high", "step", "log", "choices") if hasattr(found, key)}

    assert {name: plain(parameter) for name, parameter in in_order(SPACE)} == {
        "rate": {"low": 1e-5, "high": 0.1, "step": None, "log": True},
        "strength": {"low": 0.0, "high": 0.3, "step": 0.1, "log": False},
        "depth": {"low": 0, "high": 5, "step": 1, "log": False},
        "batch": {"low": 8, "high": 64, "step": 1, "log": True},
        "optimizer": {"choices": ("adam", "sgd")},
        "momentum": {"low": 0.0, "high": 0.9, "step": None, "log": False},
    }


def test_a_trial_that_does_not_fit_is_seen_and_other_failures_are_passed_over():
    assert state("failed", infeasible=True) is TrialState.PRUNED
    assert state("failed", infeasible=False) is TrialState.FAIL
    assert state("waiting", infeasible=False) is TrialState.RUNNING


def test_only_a_completed_trial_has_a_value_for_a_sampler():
    completed = frozen(record(0, "completed", 0.2, 0.9, math.nan, depth=3), SPACE, OBJECTIVE)
    assert (completed.value, completed.intermediate_values) == (0.9, {1: 0.2, 2: 0.9})
    assert frozen(record(1, "pruned", 0.4, depth=3), SPACE, OBJECTIVE).value is None


def test_for_looking_at_every_trial_with_a_value_counts_with_its_best():
    trials = [
        record(0, "completed", 0.2, 0.9, depth=1),
        record(1, "pruned", 0.4, depth=2, gone=7),
        record(2, "failed", depth=3),
        record(3, "running", 0.6, optimizer="adam"),
    ]
    told = as_if_completed(trials, SPACE, OBJECTIVE).trials
    assert [trial.value for trial in told] == [0.9, 0.4, 0.6]
    assert [trial.params for trial in told] == [{"depth": 1}, {"depth": 2}, {"optimizer": "adam"}]
    assert {trial.state for trial in told} == {TrialState.COMPLETE}

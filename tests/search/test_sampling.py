import sys

import pytest
from optuna.trial import TrialState

from search.config import StudyConfig
from search.errors import ConfigurationError
from search.history import Epoch, TrialRecord
from search.optuna_terms import distribution
from search.sampling import Optimizer, build_sampler, derive_seed, grid

SPACE = {
    "rate": {"type": "float", "low": 1e-5, "high": 1e-1, "log": True},
    "strength": {"type": "float", "low": 0.0, "high": 0.3, "step": 0.1},
    "depth": {"type": "int", "low": 0, "high": 5},
    "batch": {"type": "int", "low": 8, "high": 64, "log": True},
    "momentum": {"type": "float", "low": 0.0, "high": 0.9, "when": {"optimizer": "sgd"}},
    "optimizer": {"type": "choice", "values": ["adam", "sgd"]},
}
GRID = {
    "strength": {"type": "float", "low": 0.0, "high": 0.3, "step": 0.1},
    "momentum": {"type": "int", "low": 1, "high": 3, "when": {"optimizer": "sgd"}},
    "optimizer": {"type": "choice", "values": ["adam", "sgd"]},
}


def config(space=SPACE, sampler="random", pruner="none", epochs=9, seed=0, **more):
    return StudyConfig.parse(
        {
            "seed": seed,
            "space": space,
            "sampler": {"name": sampler, "startup_trials": 3},
            "pruner": {"name": pruner, "startup_trials": 2},
            "objective": {"metric": "v"},
            "budget": {"epochs": epochs},
            **more,
        }
    )


def points(optimizer, count, first=0):
    """The next points, each told as finished with a value that follows from it."""
    proposed = []
    for number in range(first, first + count):
        point, _ = optimizer.propose(number)
        optimizer.observe(number, 1, float(len(proposed) % 5))
        optimizer.finish(number, "completed", float(len(proposed) % 5))
        proposed.append(point)
    return proposed


def curve(optimizer, number, values):
    """Reports a trial's values; the epoch at which it should be pruned, or None."""
    optimizer.propose(number)
    for epoch, value in enumerate(values, 1):
        prune, _ = optimizer.observe(number, epoch, value)
        if prune:
            optimizer.finish(number, "pruned", None)
            return epoch
    optimizer.finish(number, "completed", max(values))
    return None


def test_a_seed_is_the_same_on_every_machine_and_different_for_every_purpose():
    assert derive_seed(0, "trial", 1) == 2_905_645_542
    seeds = {derive_seed(*key) for key in [(0, "trial", n) for n in range(500)] + [(1, "trial", n) for n in range(500)]}
    assert len(seeds) == 1000
    assert all(0 <= seed < 2**32 for seed in seeds)


@pytest.mark.parametrize("sampler", ["tpe", "random", "cmaes"])
def test_every_suggestion_lies_in_its_range_and_only_where_its_condition_holds(sampler):
    settings = config(sampler=sampler)
    proposed = points(Optimizer(settings), 30)
    for point in proposed:
        assert all(value in settings.space[name] for name, value in point.items()), point
        assert set(point) == set(SPACE) - (set() if point["optimizer"] == "sgd" else {"momentum"})
    assert {point["optimizer"] for point in proposed} == {"adam", "sgd"}
    assert len({str(point) for point in proposed}) == 30


def test_both_ends_of_a_range_are_proposed():
    space = {"a": {"type": "int", "low": 1, "high": 3}, "b": {"type": "float", "low": 0, "high": 1, "step": 0.5}}
    proposed = points(Optimizer(config(space)), 60)
    assert {point["a"] for point in proposed} == {1, 2, 3}
    assert {point["b"] for point in proposed} == {0.0, 0.5, 1.0}


@pytest.mark.parametrize("sampler", ["tpe", "random", "cmaes", "grid"])
def test_suggestions_follow_from_the_seed(sampler):
    space = GRID if sampler == "grid" else SPACE
    same = [points(Optimizer(config(space, sampler, seed=seed)), 8) for seed in (1, 1, 2)]
    assert same[0] == same[1]
    assert same[0] != same[2]


@pytest.mark.parametrize("sampler", ["tpe", "random", "cmaes"])
def test_what_is_fixed_is_taken_and_the_rest_is_sampled(sampler):
    optimizer = Optimizer(config(sampler=sampler))
    points(optimizer, 5)
    point, _ = optimizer.propose(5, {"rate": 0.001, "optimizer": "adam", "momentum": 0.5})
    assert (point["rate"], point["optimizer"]) == (0.001, "adam")
    assert set(point) == set(SPACE) - {"momentum"}


def test_a_sampler_that_models_values_goes_where_they_are_best():
    space = {"x": {"type": "float", "low": 0, "high": 1}, "y": {"type": "float", "low": 0, "high": 1}}
    distances = {}
    for sampler in ("tpe", "cmaes", "random"):
        optimizer = Optimizer(config(space, sampler))
        away = []
        for number in range(60):
            point, _ = optimizer.propose(number)
            away.append(abs(point["x"] - 0.2) + abs(point["y"] - 0.8))
            optimizer.observe(number, 1, -away[-1])
            optimizer.finish(number, "completed", -away[-1])
        distances[sampler] = sum(away[30:]) / 30
    assert distances["tpe"] < distances["random"] / 2
    assert distances["cmaes"] < distances["random"] / 1.5


def test_a_grid_visits_every_configuration_once_and_then_goes_around_again():
    proposed = points(Optimizer(config(GRID, "grid")), 16 + 16)
    everything = [(strength, "sgd", momentum) for strength in (0.0, 0.1, 0.2, 0.3) for momentum in (1, 2, 3)] + [
        (strength, "adam", None) for strength in (0.0, 0.1, 0.2, 0.3)
    ]
    visited = [(round(p["strength"], 9), p["optimizer"], p.get("momentum")) for p in proposed]
    assert sorted(visited[:16], key=str) == sorted(everything, key=str)
    assert visited[16:] == visited[:16]
    assert visited[:16] != sorted(visited[:16], key=str)


def test_first_points_come_before_a_grid_and_take_from_it_what_they_leave_out():
    settings = config(GRID, "grid", first_points=[{"strength": 0.3, "optimizer": "adam"}, {"optimizer": "sgd"}])
    optimizer = Optimizer(settings)
    first = [optimizer.propose(number, settings.first_points[number])[0] for number in range(2)]
    assert first[0] == {"strength": 0.3, "optimizer": "adam"}
    assert first[1]["optimizer"] == "sgd"
    assert set(first[1]) == set(GRID)
    rest = [optimizer.propose(number)[0] for number in range(2, 18)]
    assert len({str(point) for point in rest}) == 16


def test_every_value_of_a_grid_lies_in_its_range():
    settings = config({"a": {"type": "float", "low": 0.1, "high": 0.7, "step": 0.1}}, "grid")
    values = [point["a"] for point in grid(settings.space, 0)]
    assert [value for value in values if not distribution(settings.space["a"])._contains(value)] == []
    assert sorted(round(value, 9) for value in values) == [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7]


def test_trials_are_proposed_in_the_order_of_their_numbers():
    optimizer = Optimizer(config())
    optimizer.propose(0)
    with pytest.raises(RuntimeError, match="trial 2 must be asked next, but Optuna is at 1"):
        optimizer.propose(2)


@pytest.mark.parametrize(("sampler", "package", "extra"), [("cmaes", "cmaes", "cmaes"), ("gp", "torch", "gp")])
def test_a_sampler_whose_package_is_missing_says_what_to_install(monkeypatch, sampler, package, extra):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(
        ConfigurationError, match=rf"sampler.name: `{sampler}` needs .* pip install 'thawline\[{extra}\]'"
    ):
        build_sampler(config(sampler=sampler).sampler, {}, 0)


WORSE_AND_WORSE = [[1.0 - number / 10 + epoch / 100 for epoch in range(9)] for number in range(6)]


@pytest.mark.parametrize(
    ("pruner", "expected"),
    [
        ("none", [None] * 6),
        ("successive_halving", [None, 1, 1, 1, 1, 1]),
        ("median", [None, None, 1, 1, 1, 1]),
    ],
)
def test_a_trial_behind_others_is_pruned_when_its_pruner_says_so(pruner, expected):
    optimizer = Optimizer(config(pruner=pruner))
    assert [curve(optimizer, number, values) for number, values in enumerate(WORSE_AND_WORSE)] == expected


@pytest.mark.parametrize("pruner", ["successive_halving", "hyperband", "median"])
def test_a_trial_ahead_of_all_others_is_never_pruned(pruner):
    optimizer = Optimizer(config(pruner=pruner))
    better = reversed(WORSE_AND_WORSE)
    assert [curve(optimizer, number, values) for number, values in enumerate(better)] == [None] * 6


def test_no_pruner_acts_before_the_epochs_it_grants():
    for pruner in ("successive_halving", "hyperband", "median"):
        settings = config(pruner=pruner).model_dump()
        settings["pruner"]["min_epochs"] = 4
        optimizer = Optimizer(StudyConfig.model_validate(settings))
        ends = [curve(optimizer, number, values) for number, values in enumerate(WORSE_AND_WORSE * 3)]
        assert min(end for end in ends if end) >= 4


def test_hyperband_grants_some_trials_more_epochs_than_successive_halving_would():
    ends = {}
    for pruner in ("successive_halving", "hyperband"):
        optimizer = Optimizer(config(pruner=pruner))
        ends[pruner] = [curve(optimizer, number, values) for number, values in enumerate(WORSE_AND_WORSE * 3)]
    assert set(ends["successive_halving"]) <= {None, 1, 3}
    assert {1, 3, 9} & {end for end in ends["hyperband"] if end} > {1}


def record(number, status, values, **attributes):
    epochs = tuple(Epoch(epoch, {"v": value}, {}, 0.0) for epoch, value in enumerate(values, 1))
    return TrialRecord(number, 0, {"a": 1}, 0, "sampler", status, 0.0, epochs, system_attributes=attributes)


def test_optuna_is_told_every_recorded_trial_with_its_state_and_all_its_epochs():
    space = {"a": {"type": "int", "low": 0, "high": 3}}
    optimizer = Optimizer(
        config(space),
        [
            record(0, "completed", [0.2, 0.9, 0.4]),
            record(1, "pruned", [0.1, 0.3], completed_rung_0=0.1),
            record(2, "failed", [0.5, float("nan")]),
            record(3, "running", [0.6]),
            record(4, "waiting", []),
        ],
    )
    told = optimizer._study.trials
    assert [trial.state for trial in told] == [
        TrialState.COMPLETE,
        TrialState.PRUNED,
        TrialState.FAIL,
        TrialState.RUNNING,
        TrialState.RUNNING,
    ]
    assert told[0].value == 0.9
    assert [trial.intermediate_values for trial in told] == [
        {1: 0.2, 2: 0.9, 3: 0.4},
        {1: 0.1, 2: 0.3},
        {1: 0.5},
        {1: 0.6},
        {},
    ]
    assert told[1].system_attrs == {"completed_rung_0": 0.1}
    assert all(trial.params == {"a": 1} for trial in told)
    optimizer.observe(3, 2, 0.7)
    optimizer.finish(3, "completed", 0.7)
    assert optimizer.propose(5)[0]["a"] in range(4)

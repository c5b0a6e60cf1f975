import math

import pytest
from pydantic import TypeAdapter, ValidationError

from search.space import Space, condition_problems, in_order, point_problems


def space(**parameters):
    return TypeAdapter(Space).validate_python(parameters)


@pytest.mark.parametrize(
    ("values", "inside", "outside"),
    [
        ({"type": "float", "low": 0.1, "high": 0.3}, [0.1, 0.2, 0.3], [0.0999, 0.3001, "0.2", math.nan, None]),
        ({"type": "float", "low": 0, "high": 1}, [0, 1, 0.5], [-1e-9, 1 + 1e-9, math.inf, True, False]),
        ({"type": "float", "low": 0, "high": 0.3, "step": 0.1}, [0, 0.1, 0.2, 0.3, 3 * 0.1 - 1e-16], [0.15, 0.1000001]),
        ({"type": "float", "low": 1e-5, "high": 1e-2, "log": True}, [1e-5, 1e-3, 1e-2], [9e-6, 0.011, 0]),
        ({"type": "int", "low": 0, "high": 5}, [0, 3, 5], [-1, 6, 2.0, True, "2"]),
        ({"type": "int", "low": 1, "high": 9, "step": 4}, [1, 5, 9], [2, 8]),
        ({"type": "int", "low": 3, "high": 3}, [3], [2, 4]),
        ({"type": "choice", "values": [16, "adam"]}, [16, "adam"], [32, "ADAM", None]),
    ],
)
def test_a_range_holds_both_its_ends_and_nothing_beyond(values, inside, outside):
    range_ = space(it=values)["it"]
    assert [value for value in inside if value not in range_] == []
    assert [value for value in outside if value in range_] == []


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"type": "float", "low": 3, "high": 1}, r"`low <= high` must hold, but got \(low=3, high=1\)"),
        ({"type": "int", "low": 3, "high": 1}, r"`low <= high` must hold, but got \(low=3, high=1\)"),
        ({"type": "float", "low": 0, "high": 1, "log": True}, r"`low > 0` must hold on a log scale, but got \(low=0\)"),
        ({"type": "float", "low": 1, "high": 3, "log": True, "step": 1}, "a log scale has no step"),
        (
            {"type": "float", "low": 0, "high": 1, "step": 0.3},
            r"on the grid, but \(low=0, high=1, step=0.3\) misses it",
        ),
        ({"type": "float", "low": 0, "high": 1, "step": 1 / 3}, "on the grid"),
        ({"type": "int", "low": 0, "high": 5, "step": 2}, r"on the grid, but \(low=0, high=5, step=2\) misses it"),
        ({"type": "float", "low": 0, "high": math.inf}, "finite"),
        ({"type": "float", "low": 0, "high": 1, "step": 0}, "greater than 0"),
        ({"type": "int", "low": 0.5, "high": 1}, "valid integer"),
        ({"type": "choice", "values": []}, "at least 1 item"),
        ({"type": "choice", "values": [16, 32, 16]}, "all values must differ, but 16 came more than once"),
        ({"type": "choice", "values": [1, True]}, "all values must differ"),
    ],
)
def test_a_range_that_cannot_be_sampled_is_refused_as_a_sentence(values, sentence):
    with pytest.raises(ValidationError, match=sentence):
        space(it=values)


@pytest.mark.parametrize("values", [(0, 0.3, 0.1), (0, 1, 0.05), (1e-4, 1e-3, 1e-4), (0.1, 0.7, 0.2), (-1, 1, 0.25)])
def test_a_grid_is_judged_by_the_decimals_that_were_written(values):
    low, high, step = values
    range_ = space(it={"type": "float", "low": low, "high": high, "step": step})["it"]
    assert high in range_


DEPENDENT = {
    "momentum": {"type": "float", "low": 0, "high": 0.9, "when": {"optimizer": ["sgd", "rmsprop"]}},
    "nesterov": {"type": "choice", "values": [True, False], "when": {"momentum": 0.9, "optimizer": "sgd"}},
    "depth": {"type": "int", "low": 0, "high": 5},
    "optimizer": {"type": "choice", "values": ["adam", "sgd", "rmsprop"]},
}


def test_hyperparameters_come_after_those_they_depend_on_and_otherwise_as_given():
    assert [name for name, _ in in_order(space(**DEPENDENT))] == ["depth", "optimizer", "momentum", "nesterov"]


@pytest.mark.parametrize(
    ("point", "momentum", "nesterov"),
    [
        ({}, False, False),
        ({"optimizer": "adam"}, False, False),
        ({"optimizer": "sgd"}, True, False),
        ({"optimizer": "rmsprop", "momentum": 0.9}, True, False),
        ({"optimizer": "sgd", "momentum": 0.5}, True, False),
        ({"optimizer": "sgd", "momentum": 0.9}, True, True),
    ],
)
def test_a_condition_holds_for_every_value_it_names_and_for_nothing_absent(point, momentum, nesterov):
    ranges = space(**DEPENDENT)
    assert ranges["momentum"].applies(point) is momentum
    assert ranges["nesterov"].applies(point) is nesterov


def test_conditions_that_can_hold_are_no_problem():
    assert condition_problems(space(**DEPENDENT)) == []


def test_every_condition_that_can_never_hold_is_named():
    ranges = space(
        a={"type": "int", "low": 0, "high": 3},
        b={"type": "int", "low": 0, "high": 3, "when": {"a": [3, 4, 5]}},
        c={"type": "int", "low": 0, "high": 3, "when": {"z": 1}},
    )
    assert condition_problems(ranges) == [
        "space.b.when.a: must be a value that `a` can take, but got 4",
        "space.b.when.a: must be a value that `a` can take, but got 5",
        "space.c.when: `z` must be in the space too",
    ]


@pytest.mark.parametrize("chain", [("a",), ("a", "b"), ("a", "b", "c")])
def test_conditions_in_a_circle_are_refused(chain):
    following = dict(zip(chain, chain[1:] + chain[:1], strict=True))
    ranges = space(
        free={"type": "int", "low": 0, "high": 1},
        **{name: {"type": "int", "low": 0, "high": 1, "when": {following[name]: 1}} for name in chain},
    )
    [problem] = condition_problems(ranges)
    assert "must not go in a circle" in problem
    assert problem.endswith(": " + ", ".join(chain))


def test_what_is_wrong_with_a_point_is_told_value_by_value():
    ranges = space(a={"type": "int", "low": 0, "high": 3}, b={"type": "choice", "values": ["x"]}, c=DEPENDENT["depth"])
    assert point_problems(ranges, {"a": 3, "b": "x"}) == []
    assert point_problems(ranges, {"a": 4, "b": "y", "d": 1, "c": 0}) == [
        "d: not in the space",
        "a: must lie in the range given, but got 4",
        "b: must lie in the range given, but got 'y'",
    ]

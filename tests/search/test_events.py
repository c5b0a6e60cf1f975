import json
import math
import random
import struct

import pytest

from search.events import (
    Asked,
    EpochReported,
    Failed,
    Noted,
    Promoted,
    Pruned,
    SessionOpened,
    Started,
    TrialKey,
    from_json,
    to_json,
)


def bits(value):
    """The value with every float as its 64 bits, so that NaN equals NaN and -0.0 does not equal 0.0."""
    if isinstance(value, dict):
        return {key: bits(item) for key, item in value.items()}
    return struct.pack(">d", value) if isinstance(value, float) else (type(value), value)


def random_float(draw):
    while True:
        [value] = struct.unpack(">d", draw.getrandbits(64).to_bytes(8))
        if math.isfinite(value):
            return value


@pytest.mark.parametrize(
    "event",
    [
        SessionOpened("höst", 4_194_304),
        Asked(0, {"a": 1e-5, "b": True, "c": "ü\n\x00", "d": 3}, 2**32 - 1),
        Asked(7, {}, 0, "rerun", 2, {"fixed_params": {"a": 0.1}, "completed_rung_0": 0.5}),
        Started(3, 1, "host/12"),
        EpochReported(1, 2, {"v": 0.1 + 0.2, "w": -0.0, "x": 5e-324}, "prune", 1, "late", {"train": 1e308}, {"k": [1]}),
        EpochReported(1, 2, {"v": math.nan, "w": 1.0}, "fail", seconds={"train": math.nan}),
        EpochReported(1, 1, {"v": 0.5}, "pause"),
        Promoted(1),
        Pruned(1, "not among the best"),
        Failed(2, "out of memory: 'ü'"),
        Noted("winner", {"number": 3, "nested": {"list": [0.1, {"a": None}]}}),
    ],
)
def test_an_event_reads_back_bit_for_bit(event):
    again = from_json(event.kind, to_json(event))
    assert type(again) is type(event)
    assert bits(vars(again)) == bits(vars(event))


def test_any_finite_float_reads_back_bit_for_bit():
    draw = random.Random(0)
    metrics = {str(number): random_float(draw) for number in range(2000)}
    again = from_json("epoch_reported", to_json(EpochReported(0, 1, metrics, "continue")))
    assert bits(again.metrics) == bits(metrics)


def test_what_json_lacks_is_written_as_null_however_deep():
    text = to_json(Noted("it", {"a": math.nan, "b": [math.inf, (1.0, -math.inf)], "c": {"d": [{"e": math.nan}]}}))
    assert json.loads(text)["facts"] == {"a": None, "b": [None, [1.0, None]], "c": {"d": [{"e": None}]}}


@pytest.mark.parametrize(
    ("kind", "body"), [("forgotten", "{}"), ("failed", '{"number": 1}'), ("failed", '{"number": 1, "why": "x"}')]
)
def test_an_event_that_this_version_does_not_know_is_not_guessed_at(kind, body):
    with pytest.raises((KeyError, TypeError)):
        from_json(kind, body)


def test_a_rerun_is_named_after_its_trial():
    assert [str(TrialKey(7)), str(TrialKey(7, 2))] == ["7", "7.2"]

import math

import pytest

from search.view.words import duration, note_line, plural, rate, shown, size, sparkline


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ([], ""),
        ([0.5], "▁"),
        ([2, 2], "▁▁"),
        ([0, 1], "▁█"),
        ([0, 1, 2, 3, 4, 5, 6, 7], "▁▂▃▄▅▆▇█"),
        ([1, math.nan, 0, math.inf], "█·▁·"),
        ([math.nan], "·"),
    ],
)
def test_a_sparkline_has_one_character_per_value(values, line):
    assert sparkline(values) == line


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.9, "0 s"),
        (59.9, "59 s"),
        (60, "1 min 00 s"),
        (3599, "59 min 59 s"),
        (7500, "2 h 05 min"),
        (360_000, "100 h 00 min"),
    ],
)
def test_a_duration_is_said_in_its_two_largest_units(seconds, text):
    assert duration(seconds) == text


def test_values_are_shown_with_four_digits_and_everything_else_as_it_is():
    assert shown({"a": 0.000123456, "b": 3, "c": True, "d": "x y", "e": 12345.678}) == (
        "a 0.0001235, b 3, c True, d x y, e 1.235e+04"
    )


@pytest.mark.parametrize(
    ("per_second", "text"), [(0.2, "12 epochs/min"), (1 / 60, "1 epochs/min"), (0.01, "36 epochs/h"), (0, "0 epochs/h")]
)
def test_what_is_slower_than_one_a_minute_is_counted_by_the_hour(per_second, text):
    assert rate(per_second, "epochs") == text


def test_bytes_and_numbers_of_things_are_said_as_people_do():
    assert [size(0), size(95_600_000), size(1.24e9)] == ["0 MB", "96 MB", "1.2 GB"]
    assert [plural(1, "CPU"), plural(2.0, "CPU"), plural(0.5, "GPU"), plural(0, "GPU")] == [
        "1 CPU",
        "2 CPUs",
        "0.5 GPUs",
        "0 GPUs",
    ]


@pytest.mark.parametrize(
    ("nodes", "gpus", "line"),
    [
        (1, 0, "Ray has 8 CPUs, 0 GPUs; 4 trials at once, 2 CPUs each"),
        (3, 0.5, "Ray has 8 CPUs, 1 GPU on 3 nodes; 4 trials at once, 2 CPUs and 0.5 GPUs each"),
    ],
)
def test_a_cluster_is_one_line(nodes, gpus, line):
    facts = {"nodes": nodes, "cpus": 8.0, "gpus": 2.0 * gpus, "trials_at_once": 4}
    assert note_line("cluster", {**facts, "cpus_per_trial": 2, "gpus_per_trial": gpus}) == line

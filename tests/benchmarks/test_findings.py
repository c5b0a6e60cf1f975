"""What benchmarks make of what they measured: by hand."""

import math

import pytest

from benchmarks import cache
from benchmarks.driver import Run, ratio_bounds, summed_up, told_bounds
from benchmarks.findings import spread, verdict
from benchmarks.memory import draw_trials, growth, warm_after
from benchmarks.start import start_seconds


def test_a_spread_is_the_median_and_its_range():
    assert spread([3.0, 1.0, 2.0]) == "2.00 (1.00 to 3.00)"
    assert spread([1.26], digits=1) == "1.3 (1.3 to 1.3)"


def test_a_goal_is_told_as_reached_or_not():
    assert verdict("<= 5 %", True) == "goal <= 5 %: reached"
    assert verdict("<= 5 %", False) == "goal <= 5 %: not reached"


@pytest.mark.parametrize(
    ("ours", "theirs", "bounds", "told"),
    [
        (Run(30.0), Run(40.0), (0.75, 0.75), "0.75"),
        (Run(30.0), Run(40.0, whole=False), (0.0, 0.75), "less than 0.75"),
        (Run(40.0, whole=False), Run(20.0), (2.0, math.inf), "more than 2.00"),
        (Run(40.0, whole=False), Run(40.0, whole=False), (0.0, math.inf), "not known"),
    ],
)
def test_a_run_that_was_ended_bounds_the_ratio_on_one_side(ours, theirs, bounds, told):
    assert ratio_bounds(ours, theirs) == bounds
    assert told_bounds(*bounds) == told


@pytest.mark.parametrize(
    ("bounds", "trials", "told"),
    [
        ([(0.7, 0.7), (0.9, 0.9), (0.8, 0.8)], 1000, "0.70, 0.90, 0.80; median 0.80; goal <= 0.8: reached"),
        ([(0.9, 0.9)], 1000, "0.90; median 0.90; goal <= 0.8: not reached"),
        ([(0.0, 0.7)], 1000, "less than 0.70; median less than 0.70; goal <= 0.8: reached"),
        ([(0.0, 0.9)], 1000, "less than 0.90; median less than 0.90; goal <= 0.8: not known"),
        ([(2.0, math.inf)], 1000, "more than 2.00; median more than 2.00; goal <= 0.8: not reached"),
        ([(0.0, 0.7), (0.6, 0.6)], 1000, "less than 0.70, 0.60; median between 0.30 and 0.65; goal <= 0.8: reached"),
        ([(0.9, 0.9)], 100, "0.90; median 0.90"),
    ],
)
def test_the_median_ratio_is_held_against_the_goal_only_at_its_size_and_only_where_it_is_known(bounds, trials, told):
    assert summed_up(bounds, trials) == told


def test_an_ended_run_says_more_than():
    assert Run(5.0).told(100) == "50.0 ms per trial"
    assert Run(5.0, whole=False).told(100) == "more than 5 s, more than 50.0 ms per trial"


def test_a_start_is_what_the_first_step_took_longer_than_the_others():
    # Received at 10; steps end every 2 s, the last and smaller one after 1 s, the first after 5 s.
    assert start_seconds(10.0, [14.0, 15.5, 17.5, 19.5], [15.0, 17.0, 19.0, 20.0]) == (4.0, 3.0)


def test_growth_counts_from_where_every_depth_was_seen():
    assert warm_after([0, 1, 2, 2, 3, 4, 5, 5, 0]) == 7
    assert warm_after([0, 1, 2, 3, 4, 4]) is None
    assert growth([50, 100, 120, 105], warm=2) == pytest.approx(0.05)


def test_the_same_seed_draws_the_same_trials():
    first, again, other = (draw_trials(100, seed) for seed in (1, 1, 2))
    assert first == again != other
    assert warm_after([trial["parameters"]["freeze_depth"] for trial in first]) < 50


def test_every_depth_has_its_goal():
    assert [cache.goal(depth) for depth in range(6)] == [0.97, 0.97, 0.97, 0.97, 1.5, 100.0]

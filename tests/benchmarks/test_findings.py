"""What benchmarks make of what they measured: by hand."""

import math
from itertools import product

import pytest

from benchmarks import cache
from benchmarks.driver import Run, ratio_bounds, summed_up, told_bounds
from benchmarks.findings import spread, verdict
from benchmarks.memory import WARM, draw_trials, tell, warming_trials
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


def test_a_worker_is_warm_when_every_depth_has_met_every_batch_size():
    trials = [trial["parameters"] for trial in warming_trials(1)]
    assert {(trial["freeze_depth"], trial["batch_size"]) for trial in trials} == set(product(range(6), (16, 32, 64)))
    assert len(trials) == WARM == 18


def test_growth_counts_from_where_the_worker_is_warm(capsys):
    tell([50] * 17 + [100, 120, 104])
    assert "growth +4.0 %; goal <= 5%: reached" in capsys.readouterr().out
    tell([50] * 17 + [100, 120, 106])
    assert "growth +6.0 %; goal <= 5%: not reached" in capsys.readouterr().out
    tell([50] * 17)  # a worker that made room for another one
    assert capsys.readouterr().out.startswith("growth cannot be told")


def test_the_same_seed_draws_the_same_trials():
    first, again, other = (draw_trials(100, seed) for seed in (1, 1, 2))
    assert first == again != other
    assert warming_trials(1) == warming_trials(1) != warming_trials(2)
    numbers = [trial["key"][0] for trial in (*warming_trials(1), *first)]
    assert numbers == list(range(118))


def test_every_depth_has_its_goal():
    assert [cache.goal(depth) for depth in range(6)] == [0.97, 0.97, 0.97, 0.97, 1.5, 100.0]

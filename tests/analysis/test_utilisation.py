import math
from dataclasses import replace

import pytest

from analysis.utilisation import time_by_kind, utilisation
from search.history import Epoch, TrialRecord


def trial(number, start, end, repeat=0, status="completed", **seconds):
    epochs = (Epoch(1, {}, seconds, 0.0),) if seconds else ()
    return TrialRecord(
        number, repeat, {}, 0, "sampler", status, 0.0, epochs, worker="w", started_at=start, ended_at=end
    )


def test_runs_at_the_same_time_get_lanes_of_their_own_and_lanes_are_used_again():
    used = utilisation([trial(0, 1, 5), trial(1, 2, 3), trial(2, 3, 6), trial(3, 5, 7, repeat=1)], now=9)
    assert [(str(span.key), span.lane) for span in used.spans] == [("0", 0), ("1", 1), ("2", 1), ("3.1", 0)]
    assert (used.lanes, used.busy_seconds, used.wall_seconds) == (2, 10, 6)
    assert used.share == pytest.approx(10 / 12)


def test_a_run_that_has_not_ended_lasts_until_now():
    used = utilisation([trial(0, 1, None, status="running")], now=4)
    assert [(span.start, span.end, span.status) for span in used.spans] == [(1, 4, "running")]


def test_what_has_not_started_is_not_there():
    used = utilisation([trial(0, None, None, status="waiting")], now=4)
    assert (used.spans, used.lanes, used.wall_seconds) == ([], 0, 0)
    assert math.isnan(used.share)


def test_time_that_nobody_measured_is_other():
    parts = time_by_kind([trial(0, 0, 10, train=6, validation=1, setup=0.5, step=5), trial(1, 3, None, train=99)])
    assert parts == {"train": 6, "validation": 1, "setup": 0.5, "checkpoint": 0, "other": 2.5}


def test_clocks_that_disagree_give_no_negative_time():
    assert time_by_kind([trial(0, 0, 5, train=6)])["other"] == 0


def test_a_run_that_waits_at_a_rung_holds_no_worker_meanwhile():
    waiting = replace(trial(0, 0, 9, train=3), waits=((2, 5),))
    left = replace(trial(1, 0, 9, status="pruned", train=1), left_at=1)
    used = utilisation([waiting, left], now=9)
    assert [(span.key.number, span.start, span.end) for span in used.spans] == [(0, 0, 2), (1, 0, 1), (0, 5, 9)]
    assert (used.lanes, used.busy_seconds) == (2, 7)
    assert time_by_kind([waiting, left])["other"] == 3

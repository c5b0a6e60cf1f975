import math

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from analysis.convergence import Curve
from analysis.course_plots import draw_convergence, draw_learning_curves, draw_prospects, draw_shares, draw_timeline
from analysis.pruning import Prospect
from analysis.utilisation import Span, Utilisation
from search.events import TrialKey
from search.history import Epoch, TrialRecord

NAN = math.nan


EMPTY = np.array([])


CURVE = Curve(np.array([1.0, 2.0, 3.0]), np.array([NAN, 0.5, 0.4]), np.array([NAN, 0.5, 0.5]))


def trial(number, value):
    return TrialRecord(
        number, 0, {"rate": number / 40}, 0, "sampler", "completed", 0.0, (Epoch(1, {"v": value}, {}, 0.0),)
    )


def named(figure):
    return {trace.name: trace for trace in figure.data}


def test_convergence_shows_every_result_and_the_best_so_far():
    figure = draw_convergence(CURVE, "val<auc", "worker time, minutes")
    each, best = figure.data
    assert_array_equal(each.y, CURVE.value)
    assert_array_equal(best.y, CURVE.best)
    assert (figure.layout.xaxis.title.text, figure.layout.yaxis.title.text) == ("worker time, minutes", "val&lt;auc")


@pytest.mark.parametrize(("sign", "reached"), [(1, [0.7, 0.55, 0.9]), (-1, [0.3, 0.1, 0.45])])
def test_a_prospect_reaches_from_its_value_as_far_as_others_gained(sign, reached):
    prospect = Prospect(3, 2, 0.5, 0.3, np.array([0.05, 0.2, 0.4]))
    figure = draw_prospects([prospect], 0.8, "v", sign)
    _, ends = figure.data
    middle, low, high = reached
    assert list(ends.y) == ["trial 3, epoch 2"]
    assert_allclose([ends.x[0], ends.x[0] - ends.error_x.arrayminus[0], ends.x[0] + ends.error_x.array[0]], reached)
    assert low < middle < high
    assert figure.layout.shapes[0].x0 == 0.8


def test_a_prospect_without_gains_is_a_dot():
    figure = draw_prospects([Prospect(3, 2, 0.5, 0.3, EMPTY)], 0.8, "v", 1)
    assert math.isnan(figure.data[1].x[0])


def test_learning_curves_name_the_chosen_and_bundle_the_others():
    figure = draw_learning_curves({"trial <1>": {1: 0.5, 2: 0.6}}, [{1: 0.1}, {1: 0.2, 2: 0.3}], "v")
    others, chosen = figure.data
    assert list(others.y) == [0.1, None, 0.2, 0.3, None]
    assert (chosen.name, list(chosen.x)) == ("trial &lt;1&gt;", [1, 2])


def test_a_timeline_has_a_bar_for_every_run_by_its_status():
    spans = [
        Span(TrialKey(0), 0, "w<", "completed", 0, 120),
        Span(TrialKey(1, 2), 1, "w", "pruned", 60, 90),
    ]
    traces = named(draw_timeline(Utilisation(spans, 2, 150, 120)))
    assert list(traces) == ["completed", "pruned"]
    assert (list(traces["pruned"].base), list(traces["pruned"].x), list(traces["pruned"].y)) == ([1.0], [0.5], [2])
    assert traces["completed"].customdata[0][2] == "w&lt;"
    assert traces["pruned"].customdata[0][0] == "1.2"


def test_shares_of_time_are_stacked_minutes():
    assert [list(trace.x) for trace in draw_shares({"training": 120, "rest": 30}).data] == [[2.0], [0.5]]


def test_nothing_to_draw_is_an_empty_picture():
    empty = np.array([])
    assert [len(trace.y) for trace in draw_convergence(Curve(empty, empty, empty), "v", "trials").data] == [0, 0]
    assert not draw_learning_curves({}, [], "v").data
    assert not draw_timeline(Utilisation([], 0, 0, 0)).data

import math
from dataclasses import replace

import numpy as np
from numpy.testing import assert_allclose, assert_array_equal
from optuna.visualization import plot_edf

from analysis.contrast_plots import draw_comparisons, draw_convergences, draw_distributions, draw_intervals
from analysis.convergence import Curve
from analysis.depth import Comparison
from search.config import Objective
from search.history import Epoch, TrialRecord
from search.optuna_terms import as_if_completed
from search.space import FloatRange

NAN = math.nan


CURVE = Curve(np.array([1.0, 2.0, 3.0]), np.array([NAN, 0.5, 0.4]), np.array([NAN, 0.5, 0.5]))


COMPARISON = Comparison(
    setting=np.array([0.0, 4.0, 4.0]),
    value=np.array([0.5, 0.6, 0.7]),
    settings=np.array([0.0, 4.0]),
    count=np.array([1, 2]),
    mean=np.array([0.5, 0.65]),
    low=np.array([NAN, 0.1]),
    high=np.array([NAN, 1.2]),
)


SPACE = {"rate": FloatRange(type="float", low=0.0, high=1.0)}


def trial(number, value):
    return TrialRecord(
        number, 0, {"rate": number / 40}, 0, "sampler", "completed", 0.0, (Epoch(1, {"v": value}, {}, 0.0),)
    )


def test_searches_laid_over_each_other_are_named_and_coloured_apart():
    curves = draw_convergences({"a<": CURVE, "b": CURVE}, "v", "trials").data
    assert [trace.name for trace in curves] == ["a&lt;", "b"]
    assert curves[0].line.color != curves[1].line.color
    means = draw_comparisons(
        {"a": COMPARISON, "b": replace(COMPARISON, settings=np.array([0.0, 5.0]))}, "v", "d", (0, 1)
    )
    assert list(means.layout.xaxis.tickvals) == [0.0, 4.0, 5.0]


def test_distributions_are_optunas():
    objective = Objective(metric="v")
    studies = [as_if_completed([trial(n, n / 40) for n in range(9)], SPACE, objective, name) for name in ("a", "b")]
    drawn = plot_edf(studies, target_name="v")
    figure = draw_distributions(drawn, "v")
    assert [trace.name for trace in figure.data] == ["a", "b"]
    assert_array_equal(figure.data[0].y, drawn.data[0].y)


def test_test_scores_have_their_intervals():
    (scores,) = draw_intervals({"a": {"value": 0.8, "interval": [0.7, 0.85]}}, "AUC").data
    assert_allclose([scores.error_x.arrayminus[0], scores.error_x.array[0]], [0.1, 0.05])


def test_every_run_has_a_row_of_its_own_whatever_its_name_looks_like():
    long = "lungs_of_all_hospitals_with_the_large_network_seed_"
    names = ["007", "2026-11-25", f"{long}1", f"{long}2"]
    figure = draw_intervals({name: {"value": 0.8, "interval": [0.7, 0.85]} for name in names}, "AUC")
    assert list(figure.data[0].y) == [0, 1, 2, 3]
    assert list(figure.layout.yaxis.ticktext)[:2] == ["007", "2026-11-25"]

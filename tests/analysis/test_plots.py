import math
from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from optuna.visualization import plot_edf, plot_parallel_coordinate

from analysis import plots
from analysis.convergence import Curve
from analysis.depth import Comparison
from analysis.importance import Importance
from analysis.interaction import Interaction
from analysis.plot_style import BLUE, STATUS
from analysis.pruning import Prospect
from analysis.selection import Finalist
from analysis.utilisation import Span, Utilisation
from search.config import Objective
from search.events import TrialKey
from search.history import Epoch, TrialRecord
from search.optuna_terms import as_if_completed
from search.space import FloatRange

NAN = math.nan
EMPTY = np.array([])
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


def named(figure):
    return {trace.name: trace for trace in figure.data}


def test_convergence_shows_every_result_and_the_best_so_far():
    figure = plots.draw_convergence(CURVE, "val<auc", "worker time, minutes")
    each, best = figure.data
    assert_array_equal(each.y, CURVE.value)
    assert_array_equal(best.y, CURVE.best)
    assert (figure.layout.xaxis.title.text, figure.layout.yaxis.title.text) == ("worker time, minutes", "val&lt;auc")


def test_a_comparison_shows_every_trial_mean_and_interval():
    trials, means = plots.draw_comparison(COMPARISON, "val_auc", "freeze depth", (0.4, 0.8)).data
    assert_array_equal(trials.y, COMPARISON.value)
    assert_array_equal(means.y, COMPARISON.mean)
    assert_allclose(means.error_y.array, [NAN, 0.55])
    assert_allclose(means.error_y.arrayminus, [NAN, 0.55])


def test_a_finalist_shows_its_reruns_their_mean_and_what_the_search_had_seen():
    finalists = [Finalist(trial(7, 0.9), [], [0.7, 0.9], 0), Finalist(trial(3, 0.8), [], [0.6], 1)]
    traces = named(plots.draw_finalists(finalists, [0.9, 0.8], "val_auc"))
    mean = traces["mean ± standard error"]
    assert_allclose(mean.x, [0.8, 0.6])
    assert_allclose(mean.error_x.array, [0.1, NAN])
    assert list(traces["a rerun on a fresh seed"].y) == ["trial 7", "trial 7", "trial 3"]
    assert list(traces["value in the search"].x) == [0.9, 0.8]


def test_importance_beyond_chance_has_the_strong_colour():
    bars, chance = plots.draw_importances(
        [Importance("a", 0.7, 0.5, 0.9, 0.3), Importance("b", 0.3, 0.0, 0.6, 0.4)], ["first", "second"]
    ).data
    assert list(bars.marker.color) == [BLUE, STATUS["pruned"]]
    assert_allclose(bars.error_x.array, [0.2, 0.3])
    assert_allclose(bars.error_x.arrayminus, [0.2, 0.3])
    assert list(chance.x) == [0.3, 0.4]


@pytest.mark.parametrize(("log", "centres"), [(True, [0.1, 10.0]), (False, [0.505, 50.5])])
def test_cells_lie_in_the_middle_of_their_part(log, centres):
    interaction = Interaction(
        across=np.array([0.1]), down=np.array([2.0]), value=np.array([0.5]), number=np.array([4]),
        edges=np.array([0.01, 1.0, 100.0]), settings=np.array([2.0]), count=np.array([[1, 0]]),
        mean=np.array([[0.5, NAN]]), best_at=np.array([0.1]),
    )  # fmt: skip
    cells, trials = plots.draw_interaction(interaction, "v", "rate", "depth", log).data
    assert_allclose(cells.x, centres)
    assert_array_equal(cells.z, interaction.mean)
    assert list(trials.y) == ["2"]


@pytest.mark.parametrize(("sign", "reached"), [(1, [0.7, 0.55, 0.9]), (-1, [0.3, 0.1, 0.45])])
def test_a_prospect_reaches_from_its_value_as_far_as_others_gained(sign, reached):
    prospect = Prospect(3, 2, 0.5, 0.3, np.array([0.05, 0.2, 0.4]))
    figure = plots.draw_prospects([prospect], 0.8, "v", sign)
    _, ends = figure.data
    middle, low, high = reached
    assert list(ends.y) == ["trial 3, epoch 2"]
    assert_allclose([ends.x[0], ends.x[0] - ends.error_x.arrayminus[0], ends.x[0] + ends.error_x.array[0]], reached)
    assert low < middle < high
    assert figure.layout.shapes[0].x0 == 0.8


def test_a_prospect_without_gains_is_a_dot():
    figure = plots.draw_prospects([Prospect(3, 2, 0.5, 0.3, EMPTY)], 0.8, "v", 1)
    assert math.isnan(figure.data[1].x[0])


@pytest.mark.parametrize(("direction", "sign"), [("maximize", 1), ("minimize", -1)])
def test_parallel_coordinates_are_optunas_with_the_best_on_top(direction, sign):
    study = as_if_completed([trial(n, n / 40) for n in range(40)], SPACE, Objective(metric="v", direction=direction))
    drawn = plot_parallel_coordinate(study, target_name="v")
    figure = plots.draw_parallel_coordinates(drawn, ["v", "learning rate"], sign)
    assert len(figure.data) == 5
    points = [value for trace in figure.data for value in trace.y if value is not None]
    assert len(points) == 80
    best = [value for value in figure.data[-1].y[::3] if value is not None]
    assert min(best) >= 0.79 if sign > 0 else max(best) <= 0.21
    assert list(figure.layout.xaxis.ticktext) == ["v", "learning<br>rate"]


def test_learning_curves_name_the_chosen_and_bundle_the_others():
    figure = plots.draw_learning_curves({"trial <1>": {1: 0.5, 2: 0.6}}, [{1: 0.1}, {1: 0.2, 2: 0.3}], "v")
    others, chosen = figure.data
    assert list(others.y) == [0.1, None, 0.2, 0.3, None]
    assert (chosen.name, list(chosen.x)) == ("trial &lt;1&gt;", [1, 2])


def test_a_timeline_has_a_bar_for_every_run_by_its_status():
    spans = [
        Span(TrialKey(0), 0, "w<", "completed", 0, 120),
        Span(TrialKey(1, 2), 1, "w", "pruned", 60, 90),
    ]
    traces = named(plots.draw_timeline(Utilisation(spans, 2, 150, 120)))
    assert list(traces) == ["completed", "pruned"]
    assert (list(traces["pruned"].base), list(traces["pruned"].x), list(traces["pruned"].y)) == ([1.0], [0.5], [2])
    assert traces["completed"].customdata[0][2] == "w&lt;"
    assert traces["pruned"].customdata[0][0] == "1.2"


def test_shares_of_time_are_stacked_minutes():
    assert [list(trace.x) for trace in plots.draw_shares({"training": 120, "rest": 30}).data] == [[2.0], [0.5]]


def test_searches_laid_over_each_other_are_named_and_coloured_apart():
    curves = plots.draw_convergences({"a<": CURVE, "b": CURVE}, "v", "trials").data
    assert [trace.name for trace in curves] == ["a&lt;", "b"]
    assert curves[0].line.color != curves[1].line.color
    means = plots.draw_comparisons(
        {"a": COMPARISON, "b": replace(COMPARISON, settings=np.array([0.0, 5.0]))}, "v", "d", (0, 1)
    )
    assert list(means.layout.xaxis.tickvals) == [0.0, 4.0, 5.0]


def test_distributions_are_optunas():
    objective = Objective(metric="v")
    studies = [as_if_completed([trial(n, n / 40) for n in range(9)], SPACE, objective, name) for name in ("a", "b")]
    drawn = plot_edf(studies, target_name="v")
    figure = plots.draw_distributions(drawn, "v")
    assert [trace.name for trace in figure.data] == ["a", "b"]
    assert_array_equal(figure.data[0].y, drawn.data[0].y)


def test_test_scores_have_their_intervals():
    (scores,) = plots.draw_intervals({"a": {"value": 0.8, "interval": [0.7, 0.85]}}, "AUC").data
    assert_allclose([scores.error_x.arrayminus[0], scores.error_x.array[0]], [0.1, 0.05])


def test_nothing_to_draw_is_an_empty_picture():
    nothing = Comparison(EMPTY, EMPTY, EMPTY, EMPTY.astype(int), EMPTY, EMPTY, EMPTY)
    for figure in (
        plots.draw_convergence(Curve(EMPTY, EMPTY, EMPTY), "v", "trials"),
        plots.draw_comparison(nothing, "v", "depth", (0, 1)),
        plots.draw_learning_curves({}, [], "v"),
        plots.draw_timeline(Utilisation([], 0, 0, 0)),
    ):
        assert "null" in figure.to_json() or figure.to_json()

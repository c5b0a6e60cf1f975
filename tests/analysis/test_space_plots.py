import math

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from optuna.visualization import plot_parallel_coordinate

from analysis.depth import Comparison
from analysis.importance import Importance
from analysis.interaction import Interaction
from analysis.plot_style import BLUE, STATUS
from analysis.selection import Finalist
from analysis.space_plots import (
    draw_comparison,
    draw_finalists,
    draw_importances,
    draw_interaction,
    draw_parallel_coordinates,
)
from search.config import Objective
from search.history import Epoch, TrialRecord
from search.optuna_terms import as_if_completed
from search.space import FloatRange

NAN = math.nan


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


def test_a_comparison_shows_every_trial_mean_and_interval():
    trials, means = draw_comparison(COMPARISON, "val_auc", "freeze depth", (0.4, 0.8)).data
    assert_array_equal(trials.y, COMPARISON.value)
    assert_array_equal(means.y, COMPARISON.mean)
    assert_allclose(means.error_y.array, [NAN, 0.55])
    assert_allclose(means.error_y.arrayminus, [NAN, 0.55])


def test_a_finalist_shows_its_reruns_their_mean_and_what_the_search_had_seen():
    finalists = [Finalist(trial(7, 0.9), [], [0.7, 0.9], 0), Finalist(trial(3, 0.8), [], [0.6], 1)]
    traces = named(draw_finalists(finalists, [0.9, 0.8], "val_auc"))
    mean = traces["mean ± standard error"]
    assert_allclose(mean.x, [0.8, 0.6])
    assert_allclose(mean.error_x.array, [0.1, NAN])
    assert list(traces["a rerun on a fresh seed"].y) == ["trial 7", "trial 7", "trial 3"]
    assert list(traces["value in the search"].x) == [0.9, 0.8]


def test_importance_beyond_chance_has_the_strong_colour():
    bars, chance = draw_importances(
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
    cells, trials = draw_interaction(interaction, "v", "rate", "depth", log).data
    assert_allclose(cells.x, centres)
    assert_array_equal(cells.z, interaction.mean)
    assert list(trials.y) == ["2"]


@pytest.mark.parametrize(("direction", "sign"), [("maximize", 1), ("minimize", -1)])
def test_parallel_coordinates_are_optunas_with_the_best_on_top(direction, sign):
    study = as_if_completed([trial(n, n / 40) for n in range(40)], SPACE, Objective(metric="v", direction=direction))
    drawn = plot_parallel_coordinate(study, target_name="v")
    figure = draw_parallel_coordinates(drawn, ["v", "learning rate"], sign)
    assert len(figure.data) == 5
    points = [value for trace in figure.data for value in trace.y if value is not None]
    assert len(points) == 80
    best = [value for value in figure.data[-1].y[::3] if value is not None]
    assert min(best) >= 0.79 if sign > 0 else max(best) <= 0.21
    assert list(figure.layout.xaxis.ticktext) == ["v", "learning<br>rate"]


def test_nothing_to_compare_is_an_empty_picture():
    empty = np.array([])
    nothing = Comparison(empty, empty, empty, empty.astype(int), empty, empty, empty)
    assert [len(trace.y) for trace in draw_comparison(nothing, "v", "depth", (0, 1)).data] == [0, 0]

import math
import warnings

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread

from analysis.convergence import Curve
from analysis.depth import Comparison
from analysis.plots import draw_comparison, draw_convergence

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
EMPTY = np.array([])


@pytest.fixture(autouse=True)
def warnings_are_errors():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


@pytest.fixture
def saved(monkeypatch):
    """Every figure that is saved."""
    figures = []
    save = Figure.savefig

    def remember(figure, *arguments, **keywords):
        save(figure, *arguments, **keywords)
        figures.append(figure)

    monkeypatch.setattr(Figure, "savefig", remember)
    return figures


def texts(figure):
    return {text.get_text() for text in figure.findobj(matplotlib.text.Text)}


def is_a_picture(path):
    pixels = imread(path)
    return min(pixels.shape[:2]) > 300 and pixels.std() > 0.01


def test_convergence_shows_every_result_and_the_best_so_far(tmp_path, saved):
    draw_convergence(CURVE, tmp_path / "a.png", "val_$auc$", "worker-seconds")
    each, best = saved[0].axes[0].lines
    np.testing.assert_array_equal(each.get_ydata(), CURVE.value)
    np.testing.assert_array_equal(best.get_ydata(), CURVE.best)
    assert {"val_$auc$", "worker-seconds", "best so far"} <= texts(saved[0])
    assert is_a_picture(tmp_path / "a.png")


def test_a_comparison_shows_every_trial_mean_and_interval(tmp_path, saved):
    draw_comparison(COMPARISON, tmp_path / "a.png", "val_auc", "freeze_depth", "after 3 epochs")
    axes = saved[0].axes[0]
    means, dots = axes.lines
    np.testing.assert_array_equal(means.get_ydata(), COMPARISON.mean)
    np.testing.assert_array_equal(dots.get_xydata(), [[0, 0.5], [4, 0.6], [4, 0.7]])
    assert [[4.0, 0.1], [4.0, 1.2]] in [segment.tolist() for segment in axes.collections[0].get_segments()]
    assert {"freeze_depth", "val_auc", "a trial after 3 epochs"} <= texts(saved[0])
    assert is_a_picture(tmp_path / "a.png")


@pytest.mark.parametrize("ending", ["png", "svg", "pdf"])
def test_nothing_to_draw_is_an_empty_picture(tmp_path, ending):
    draw_convergence(Curve(EMPTY, EMPTY, EMPTY), tmp_path / f"a.{ending}", "val_auc", "trials")
    comparison = Comparison(EMPTY, EMPTY, EMPTY, EMPTY.astype(int), EMPTY, EMPTY, EMPTY)
    draw_comparison(comparison, tmp_path / f"b.{ending}", "val_auc", "freeze_depth", "after 3 epochs")
    assert (tmp_path / f"a.{ending}").stat().st_size > 1000
    assert (tmp_path / f"b.{ending}").stat().st_size > 1000


def test_drawing_leaves_the_settings_of_matplotlib_alone(tmp_path):
    before = dict(matplotlib.rcParams)
    draw_convergence(CURVE, tmp_path / "a.png", "val_auc", "trials")
    assert dict(matplotlib.rcParams) == before

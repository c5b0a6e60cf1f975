import math

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from analysis.evaluation import MANY_CLASSES, Confusion, Reliability, Roc, TrainingCurve
from analysis.evaluation_plots import draw_confusion, draw_reliability, draw_roc, draw_training

ROC = Roc("ill <b>", np.array([0.0, 0.2, 1.0]), np.array([0.0, 0.9, 1.0]), 0.85)
METRICS = {
    "sensitivity": {"value": 0.8, "interval": [0.7, 0.9]},
    "specificity": {"value": 0.6, "interval": [0.5, 0.75]},
}


def test_cells_hold_counts_and_shares_and_names_stay_text():
    confusion = Confusion(["a", "b <i>"], np.array([[3, 1], [0, 0]]), np.array([[0.75, 0.25], [math.nan, math.nan]]))
    figure = draw_confusion(confusion)
    assert [each.text for each in figure.layout.annotations] == [
        "<b>3</b><br>75%",
        "<b>1</b><br>25%",
        "<b>0</b><br>–",
        "<b>0</b><br>–",
    ]
    assert list(figure.layout.xaxis.ticktext) == ["a", "b &lt;i&gt;"]
    assert_array_equal(figure.data[0].z, confusion.shares)


def test_many_classes_have_colours_only():
    many = MANY_CLASSES + 1
    names = [f"c{n}" for n in range(many)]
    assert not draw_confusion(Confusion(names, np.eye(many, dtype=int), np.eye(many))).layout.annotations


def test_a_single_curve_has_its_operating_point_with_both_intervals():
    *_, point = draw_roc([ROC], METRICS).data
    assert_allclose([point.x[0], point.y[0]], [0.4, 0.8])
    assert_allclose([point.x[0] - point.error_x.arrayminus[0], point.x[0] + point.error_x.array[0]], [0.25, 0.5])
    assert_allclose([point.y[0] - point.error_y.arrayminus[0], point.y[0] + point.error_y.array[0]], [0.7, 0.9])


@pytest.mark.parametrize(
    ("curves", "metrics", "traces"),
    [
        ([ROC, ROC], METRICS, 3),
        ([ROC], {**METRICS, "specificity": {"value": None, "interval": [None, None]}}, 2),
        ([ROC], {"sensitivity": METRICS["sensitivity"], "specificity": {"value": 0.5, "interval": [None, None]}}, 3),
    ],
)
def test_what_is_not_known_is_not_drawn(curves, metrics, traces):
    figure = draw_roc(curves, metrics)
    assert len(figure.data) == traces
    assert figure.data[1].name == "ill &lt;b&gt;"


def test_empty_bins_are_left_out_and_full_ones_are_larger():
    reliability = Reliability(
        np.linspace(0, 1, 4), np.array([math.nan, 0.5, 0.9]), np.array([math.nan, 0.4, 1.0]), np.array([0, 1, 16])
    )
    _, dots = draw_reliability(reliability).data
    assert list(dots.customdata) == [1, 16]
    assert dots.marker.size[1] > dots.marker.size[0]


def test_training_without_validation_has_one_line_and_no_best_epoch():
    curve = TrainingCurve("loss", np.array([1, 2]), np.array([0.5, 0.4]), np.array([math.nan, math.nan]))
    figure = draw_training(curve, None)
    assert [trace.name for trace in figure.data] == ["training"]
    assert not figure.layout.shapes
    assert draw_training(curve, 2).layout.shapes[0].x0 == 2

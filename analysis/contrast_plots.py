"""Interactive plots of several searches over each other, drawn from values that other modules computed."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import plotly.graph_objects as go  # type: ignore[import-untyped]  # ships no types

from analysis.convergence import Curve
from analysis.course_plots import add_best
from analysis.depth import Comparison
from analysis.plot_style import BLUE, NUMBER, PALETTE, canvas, hover, plain
from analysis.space_plots import add_means


def draw_convergences(curves: Mapping[str, Curve], metric: str, spent: str) -> go.Figure:
    """The best so far of several searches."""
    figure = canvas(340, xaxis={"title": {"text": spent}, "rangemode": "tozero"}, yaxis_title=plain(metric))
    for position, (name, curve) in enumerate(curves.items()):
        add_best(figure, curve, plain(name), PALETTE[position % len(PALETTE)])
    return figure


def draw_comparisons(
    comparisons: Mapping[str, Comparison], metric: str, name: str, span: tuple[float, float]
) -> go.Figure:
    """Means of several searches by setting, side by side; arguments as those of `draw_comparison`."""
    settings = sorted({float(each) for comparison in comparisons.values() for each in comparison.settings})
    figure = canvas(
        360,
        xaxis={"title": {"text": plain(name)}, "tickvals": settings},
        yaxis={"title": {"text": plain(metric)}, "range": span},
        scattermode="group",
        scattergap=0.6,
    )
    for position, (label, comparison) in enumerate(comparisons.items()):
        add_means(figure, comparison, plain(label), PALETTE[position % len(PALETTE)])
    return figure


def draw_distributions(drawn: go.Figure, metric: str) -> go.Figure:
    """What `optuna.visualization.plot_edf` drew, in the house's look."""
    figure = canvas(
        360, xaxis_title=plain(metric), yaxis={"title": {"text": "share of trials"}, "range": [-0.02, 1.02]}
    )
    for position, trace in enumerate(drawn.data):
        figure.add_scatter(
            x=trace.x, y=trace.y, mode="lines", name=plain(trace.name), showlegend=True,
            line={"width": 2.5, "color": PALETTE[position % len(PALETTE)]},
            hovertemplate=f"%{{y:.0%}} at most %{{x:{NUMBER}}}<extra></extra>",
        )  # fmt: skip
    return figure


def draw_intervals(metrics: Mapping[str, Mapping[str, Any]], name: str) -> go.Figure:
    """A row per run: a metric of its test part with its interval."""
    value = np.array([metric["value"] for metric in metrics.values()], dtype=np.float64)
    low, high = np.array([metric["interval"] for metric in metrics.values()], dtype=np.float64).T
    names, places = [plain(run) for run in metrics], list(range(len(metrics)))  # as names, 007 would be a number
    axis = {"tickvals": places, "ticktext": names, "range": [len(metrics) - 0.5, -0.5]}
    figure = canvas(90 + 46 * len(metrics), xaxis_title=plain(name), yaxis=axis)
    figure.add_scatter(
        x=value, y=places, customdata=names, mode="markers", marker={"size": 9, "color": BLUE},
        error_x={"array": high - value, "arrayminus": value - low, "color": BLUE, "thickness": 2, "width": 5},
        hovertemplate=hover(plain(name), "%{customdata}"), showlegend=False,
    )  # fmt: skip
    return figure

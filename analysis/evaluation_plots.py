"""Interactive plots of the final evaluation, drawn from values that `analysis.evaluation` computed."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go  # type: ignore[import-untyped]  # ships no types

from analysis.evaluation import MANY_CLASSES, Confusion, Reliability, Roc, TrainingCurve
from analysis.plot_style import BLUE, INK, ORANGE, PALETTE, PAPER, QUIET, SCALE, canvas, plain


def draw_confusion(confusion: Confusion) -> go.Figure:
    """Shares of each actual class, with counts."""
    names = [plain(name, 22) for name in confusion.classes]
    places = list(range(len(names)))
    axis = {"tickvals": places, "ticktext": names, "showgrid": False}
    figure = canvas(
        min(640, 150 + 74 * len(names)),
        xaxis={**axis, "title": {"text": "predicted"}},
        yaxis={**axis, "title": {"text": "actual"}, "autorange": "reversed"},
    )
    figure.add_heatmap(
        z=confusion.shares,
        x=places,
        y=places,
        customdata=confusion.counts,
        zmin=0,
        zmax=1,
        colorscale=SCALE,
        showscale=False,
        xgap=3,
        ygap=3,
        hovertemplate="%{customdata} images, %{z:.1%}<extra></extra>",
    )
    if len(names) <= MANY_CLASSES:
        for (row, column), count in np.ndenumerate(confusion.counts):
            share = confusion.shares[row, column]
            text = f"<b>{count}</b><br>{'–' if np.isnan(share) else f'{share:.0%}'}"
            figure.add_annotation(
                x=column,
                y=row,
                text=text,
                showarrow=False,
                font={"color": PAPER if share > 0.55 else INK},
            )
    return figure


def draw_roc(curves: Sequence[Roc], metrics: Mapping[str, Any]) -> go.Figure:
    """Curves of one class against the rest; with a single one its operating point as well."""
    figure = canvas(
        400,
        xaxis={"title": {"text": "1 − specificity"}, "range": [-0.02, 1.02]},
        yaxis={"title": {"text": "sensitivity"}, "range": [-0.02, 1.02]},
    )
    _add_diagonal(figure, "chance")
    for position, curve in enumerate(curves):
        figure.add_scatter(
            x=curve.false_positive_rate,
            y=curve.true_positive_rate,
            mode="lines",
            name=plain(curve.name, 22),
            showlegend=len(curves) <= MANY_CLASSES,
            line={"width": 2.5, "color": PALETTE[position % len(PALETTE)]},
            hovertemplate="sensitivity %{y:.3f}, 1 − specificity %{x:.3f}<extra></extra>",
        )
    sensitivity, specificity = (metrics.get(name, {}) for name in ("sensitivity", "specificity"))
    if len(curves) == 1 and None not in (sensitivity.get("value"), specificity.get("value")):
        _mark_operating_point(figure, sensitivity, specificity)
    return figure


def draw_reliability(reliability: Reliability) -> go.Figure:
    """Accuracy against confidence by bin; the area of a dot grows with its images."""
    filled = np.flatnonzero(reliability.counts)
    figure = canvas(
        400,
        xaxis={"title": {"text": "confidence (highest probability)"}, "range": [0.38, 1.02]},
        yaxis={"title": {"text": "accuracy"}, "range": [-0.04, 1.06]},
    )
    if len(filled):
        figure.update_xaxes(range=[min(0.5, float(reliability.edges[filled[0]])) - 0.03, 1.04])
    _add_diagonal(figure, "accuracy = confidence")
    counts = reliability.counts[filled]
    figure.add_scatter(
        x=reliability.confidence[filled],
        y=reliability.accuracy[filled],
        mode="markers",
        name="images in a bin",
        customdata=counts,
        cliponaxis=False,
        marker={"color": BLUE, "size": 6 + 24 * np.sqrt(counts / max(1, counts.max(initial=0))), "opacity": 0.75},
        hovertemplate="accuracy %{y:.2f} at confidence %{x:.2f}, %{customdata} images<extra></extra>",
    )
    return figure


def draw_training(curve: TrainingCurve, best_epoch: int | None) -> go.Figure:
    """A score by epoch on training and validation images, the best epoch marked."""
    figure = canvas(320, xaxis={"title": {"text": "epoch"}, "tickformat": "d"}, yaxis_title=plain(curve.name))
    for name, values, colour in (("training", curve.train, BLUE), ("validation", curve.validation, ORANGE)):
        if not np.isnan(values).all():
            figure.add_scatter(
                x=curve.epochs,
                y=values,
                mode="lines+markers",
                name=name,
                line={"color": colour},
                marker={"size": 5},
                hovertemplate="%{y:.4~g} at epoch %{x}<extra></extra>",
            )
    if best_epoch is not None:
        figure.add_vline(x=best_epoch, line={"color": QUIET, "width": 1, "dash": "dot"})
    return figure


def _mark_operating_point(figure: go.Figure, sensitivity: Mapping[str, Any], specificity: Mapping[str, Any]) -> None:
    """With both intervals, where there are any."""
    x, y = 1 - specificity["value"], sensitivity["value"]
    (low_x, high_x), (low_y, high_y) = specificity["interval"], sensitivity["interval"]
    figure.add_scatter(
        x=[x],
        y=[y],
        mode="markers",
        name="operating point",
        marker={"color": ORANGE, "size": 11},
        error_x=_error(x, None if high_x is None else 1 - high_x, None if low_x is None else 1 - low_x),
        error_y=_error(y, low_y, high_y),
        hovertemplate="sensitivity %{y:.3f}, 1 − specificity %{x:.3f}<extra></extra>",
    )


def _error(value: float, low: float | None, high: float | None) -> dict[str, Any]:
    if low is None or high is None:
        return {}
    return {"array": [high - value], "arrayminus": [value - low], "color": ORANGE, "thickness": 1.5, "width": 4}


def _add_diagonal(figure: go.Figure, name: str) -> None:
    """The line on which both axes say the same."""
    figure.add_scatter(
        x=[0, 1],
        y=[0, 1],
        mode="lines",
        name=name,
        hoverinfo="skip",
        line={"color": QUIET, "dash": "dash", "width": 1},
    )

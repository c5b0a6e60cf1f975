"""Interactive plots of how a search went, drawn from values that other modules computed."""

from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go  # type: ignore[import-untyped]  # ships no types

from analysis.convergence import Curve
from analysis.plot_style import (
    BLUE,
    MANY,
    NUMBER,
    ORANGE,
    PALETTE,
    PAPER,
    QUIET,
    STATUS,
    canvas,
    dot,
    hover,
    hover_point,
    plain,
)
from analysis.pruning import Prospect
from analysis.utilisation import Utilisation


def draw_convergence(curve: Curve, metric: str, spent: str) -> go.Figure:
    """Every result and the best so far against what was spent; points without a value are not drawn."""
    figure = canvas(340, xaxis={"title": {"text": spent}, "rangemode": "tozero"}, yaxis_title=plain(metric))
    figure.add_scatter(
        x=curve.spent,
        y=curve.value,
        mode="markers",
        name="each result",
        marker=dot(len(curve.value)),
        hovertemplate=hover_point(),
    )
    add_best(figure, curve, "best so far", BLUE)
    return figure


def add_best(figure: go.Figure, curve: Curve, label: str, colour: str) -> None:
    """The best so far of one search."""
    figure.add_scatter(
        x=curve.spent,
        y=curve.best,
        mode="lines",
        name=label,
        line={"shape": "hv", "width": 2.5, "color": colour},
        hovertemplate=hover_point(),
    )


def draw_prospects(prospects: Sequence[Prospect], best: float, metric: str, sign: int) -> go.Figure:
    """A row per pruned trial: its value, and where the gains of completed trials would have taken it."""
    names = [f"trial {each.number}, epoch {each.epoch}" for each in prospects]
    value = np.array([each.value for each in prospects])
    median = np.array([np.median(each.gains) if len(each.gains) else np.nan for each in prospects])
    low = np.array([each.gains.min() if len(each.gains) else np.nan for each in prospects])
    high = np.array([each.gains.max() if len(each.gains) else np.nan for each in prospects])
    figure = canvas(110 + 26 * len(names), xaxis_title=plain(metric), yaxis={"autorange": "reversed"})
    figure.add_scatter(
        x=value,
        y=names,
        mode="markers",
        name="when it was pruned",
        marker={"size": 7, "color": QUIET},
        hovertemplate=hover("pruned at"),
    )
    figure.add_scatter(
        x=value + sign * median,
        y=names,
        mode="markers",
        name="with others' gains: median, range",
        marker={"symbol": "line-ns", "size": 11, "line": {"width": 2.5, "color": BLUE}},
        error_x={
            "array": high - median if sign > 0 else median - low,
            "arrayminus": median - low if sign > 0 else high - median,
            "color": BLUE,
            "thickness": 1.5,
            "width": 3,
        },
        hovertemplate=hover("with the median gain"),
    )
    figure.add_vline(x=best, line={"color": ORANGE, "width": 2, "dash": "dot"})
    figure.add_annotation(
        x=best,
        y=1,
        yref="paper",
        yanchor="bottom",
        xanchor="right",
        text="best completed trial ",
        showarrow=False,
        font={"color": QUIET, "size": 12},
        yshift=-2,
    )
    return figure


def draw_learning_curves(
    chosen: Mapping[str, Mapping[int, float]], others: Sequence[Mapping[int, float]], metric: str
) -> go.Figure:
    """Values by epoch: the chosen runs by name, all others as one faint bundle."""
    figure = canvas(
        400, xaxis={"title": {"text": "epoch"}, "dtick": None, "tickformat": "d"}, yaxis_title=plain(metric)
    )
    epochs: list[float | None] = [point for curve in others for point in (*curve, None)]
    values: list[float | None] = [point for curve in others for point in (*curve.values(), None)]
    if others:
        figure.add_scatter(
            x=epochs,
            y=values,
            mode="lines+markers",
            name="other trials",
            hoverinfo="skip",
            opacity=0.5,
            line={"color": STATUS["pruned"], "width": 1},
            marker={"size": 3},
        )
    for position, (name, curve) in enumerate(chosen.items()):
        figure.add_scatter(
            x=list(curve),
            y=list(curve.values()),
            mode="lines+markers",
            name=plain(name),
            line={"width": 2, "color": PALETTE[position % len(PALETTE)]},
            marker={"size": 5},
            hovertemplate=f"{plain(name)}, epoch %{{x}}: %{{y:{NUMBER}}}<extra></extra>",
        )
    return figure


def draw_timeline(utilisation: Utilisation) -> go.Figure:
    """A bar per training run, a row for each that ran at the same time."""
    lanes = utilisation.lanes
    rows = {"tickformat": "d", "dtick": 1 + lanes // 20, "autorange": "reversed", "showgrid": False}
    figure = canvas(
        120 + min(34 * lanes, 680),  # of very many workers a picture, not a roll of paper
        xaxis={"title": {"text": "used time of the study, minutes"}, "rangemode": "tozero"},
        yaxis={"title": {"text": "lane"}, **rows},
        barmode="overlay",
        bargap=0.25,
    )
    for status, colour in STATUS.items():
        spans = [span for span in utilisation.spans if span.status == status]
        if spans:
            figure.add_bar(
                base=[span.start / 60 for span in spans],
                x=[(span.end - span.start) / 60 for span in spans],
                y=[span.lane + 1 for span in spans],
                orientation="h",
                name=status,
                marker={"color": colour, "line": {"color": PAPER, "width": 1 if len(utilisation.spans) <= MANY else 0}},
                customdata=[[str(span.key), round(span.end - span.start, 1), plain(span.worker)] for span in spans],
                hovertemplate="trial %{customdata[0]}: %{customdata[1]} s on %{customdata[2]}<extra></extra>",
            )
    return figure


def draw_shares(seconds: Mapping[str, float]) -> go.Figure:
    """One bar, divided by what the seconds went into."""
    figure = canvas(
        150,
        barmode="stack",
        xaxis={"title": {"text": "worker time, minutes"}},
        yaxis={"visible": False},
        legend={"traceorder": "normal"},
    )
    colours = [*PALETTE[:4], STATUS["pruned"]]
    for position, (name, amount) in enumerate(seconds.items()):
        figure.add_bar(
            x=[amount / 60],
            y=[""],
            orientation="h",
            name=plain(name),
            marker={"color": colours[position % 5]},
            hovertemplate=f"{plain(name)}: %{{x:.2f}} min<extra></extra>",
        )
    return figure

"""Interactive plots of what mattered in a search, drawn from values that other modules computed."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go  # type: ignore[import-untyped]  # ships no types

from analysis.depth import Comparison
from analysis.importance import Importance
from analysis.interaction import Interaction
from analysis.plot_style import (
    BLUE,
    INK,
    MANY,
    NUMBER,
    ORANGE,
    PAPER,
    QUIET,
    SCALE,
    STATUS,
    canvas,
    dot,
    hover,
    hover_point,
    plain,
)
from analysis.selection import Finalist


def draw_finalists(finalists: Sequence[Finalist], searched: Sequence[float], metric: str) -> go.Figure:
    """A row per finalist: its reruns, their mean with its standard error, and the value that the search had seen."""
    names = [f"trial {each.trial.number}" for each in finalists]
    figure = canvas(110 + 52 * len(names), xaxis_title=plain(metric), yaxis={"autorange": "reversed"})
    figure.add_scatter(
        x=list(searched),
        y=names,
        mode="markers",
        name="value in the search",
        hovertemplate=hover("in the search"),
        marker={"symbol": "diamond-open", "size": 10, "color": QUIET, "line": {"width": 1.5}},
    )
    figure.add_scatter(
        x=[each.mean for each in finalists],
        y=names,
        mode="markers",
        name="mean ± standard error",
        marker={"symbol": "line-ns", "size": 20, "line": {"width": 3, "color": ORANGE}},
        error_x={"array": [each.standard_error for each in finalists], "color": ORANGE, "thickness": 2, "width": 5},
        hovertemplate=hover("mean"),
    )
    figure.add_scatter(
        x=[value for each in finalists for value in each.values],
        y=[name for name, each in zip(names, finalists, strict=True) for _ in each.values],
        mode="markers",
        name="a rerun on a fresh seed",
        marker={"size": 9, "color": BLUE},
        hovertemplate=hover("rerun"),
    )
    return figure


def draw_importances(importances: Sequence[Importance], labels: Sequence[str]) -> go.Figure:
    """A bar per hyperparameter with its interval, and the mark that chance alone stays under."""
    names = [plain(words) for words in labels]
    share = np.array([each.share for each in importances])
    figure = canvas(
        120 + 44 * len(names),
        xaxis={"title": {"text": "share of the importance"}, "tickformat": ".0%", "rangemode": "tozero"},
        yaxis={"autorange": "reversed"},
    )
    figure.add_bar(
        x=share,
        y=names,
        orientation="h",
        name="importance, with 95 % interval",
        width=0.5,
        marker={"color": [BLUE if each.stands_out else STATUS["pruned"] for each in importances]},
        error_x={
            "array": [each.high for each in importances] - share,
            "arrayminus": share - [each.low for each in importances],
            "color": INK,
            "thickness": 1.2,
            "width": 4,
        },
        hovertemplate="%{y}: %{x:.1%}<extra></extra>",
    )
    figure.add_scatter(
        x=[each.chance for each in importances],
        y=names,
        mode="markers",
        name="95 % of shuffles stay left of this",
        marker={"symbol": "line-ns", "size": 22, "line": {"width": 2.5, "color": ORANGE}},
        hovertemplate="chance: %{x:.1%}<extra></extra>",
    )
    return figure


def draw_comparison(comparison: Comparison, metric: str, name: str, span: tuple[float, float] | None) -> go.Figure:
    """Every trial, and per setting the mean with its 95 % interval; a setting with one trial has none.

    Args:
        comparison: What is shown.
        metric: Name of the objective.
        name: Name of the hyperparameter.
        span: Lowest and highest value shown; an interval of few trials may go beyond.
    """
    figure = canvas(
        340,
        xaxis={"title": {"text": plain(name)}, "tickvals": comparison.settings},
        yaxis={"title": {"text": plain(metric)}, "range": span},
    )
    figure.add_scatter(
        x=comparison.setting,
        y=comparison.value,
        mode="markers",
        name="a trial",
        hovertemplate=hover_point(),
        marker=dot(len(comparison.value)),
    )
    add_means(figure, comparison, "mean, 95 % interval", ORANGE)
    return figure


def add_means(figure: go.Figure, comparison: Comparison, label: str, colour: str) -> None:
    """The means of one comparison, with their intervals."""
    figure.add_scatter(
        x=comparison.settings,
        y=comparison.mean,
        mode="markers",
        name=label,
        customdata=comparison.count,
        marker={"symbol": "line-ew", "size": 20, "line": {"width": 3, "color": colour}},
        error_y={
            "array": comparison.high - comparison.mean,
            "arrayminus": comparison.mean - comparison.low,
            "color": colour,
            "thickness": 2,
            "width": 5,
        },
        hovertemplate=f"mean %{{y:{NUMBER}}} of %{{customdata}} trials<extra></extra>",
    )


def draw_interaction(interaction: Interaction, metric: str, across: str, down: str, log: bool) -> go.Figure:
    """Cells coloured by the mean value of their trials, and the trials in them."""
    edges = interaction.edges
    centres = np.sqrt(edges[1:] * edges[:-1]) if log else (edges[1:] + edges[:-1]) / 2
    few = len(interaction.value) <= MANY
    figure = canvas(
        90 + 52 * len(interaction.settings),
        xaxis={"title": {"text": plain(across)}, "showgrid": False, **_axis(log)},
        yaxis={
            "title": {"text": plain(down)},
            "showgrid": False,
            "type": "category",
            "categoryarray": list(map(_setting, interaction.settings)),
        },
    )
    figure.add_heatmap(
        x=centres,
        y=list(map(_setting, interaction.settings)),
        z=interaction.mean,
        customdata=interaction.count,
        colorscale=SCALE,
        xgap=3,
        ygap=3,
        hoverongaps=False,
        colorbar={"title": {"text": plain(metric), "side": "right"}, "thickness": 12, "outlinewidth": 0, "len": 0.9},
        hovertemplate=f"mean %{{z:{NUMBER}}} of %{{customdata}} trials<extra></extra>",
    )
    figure.add_scatter(
        x=interaction.across,
        y=list(map(_setting, interaction.down)),
        mode="markers",
        customdata=np.column_stack([interaction.number, interaction.value]),
        marker={"size": 8, "color": INK, "line": {"width": 1.5, "color": PAPER}} if few else {"size": 3, "color": INK},
        hovertemplate=f"trial %{{customdata[0]}}: %{{customdata[1]:{NUMBER}}} at %{{x:{NUMBER}}}<extra></extra>",
    )
    return figure


def draw_parallel_coordinates(drawn: go.Figure, labels: Sequence[str], sign: int) -> go.Figure:
    """What `optuna.visualization.plot_parallel_coordinate` drew, as a few traces in the house's look.

    A trace per trial takes a browser seconds at a thousand trials. Lines are gathered by value into a few colours, and
    the best ones lie on top.

    Args:
        drawn: The first axis is the objective.
        labels: Of the axes; Optuna cuts long ones short.
        sign: 1 to maximize, -1 to minimize.
    """
    lines = [trace for trace in drawn.data if trace.mode == "lines" and trace.y is not None and len(trace.y) > 1]
    axis = drawn.layout.xaxis
    figure = canvas(
        440,
        xaxis={
            "tickvals": axis.tickvals,
            "ticktext": [plain(label).replace(" ", "<br>") for label in labels],
            "range": axis.range,
            "showgrid": False,
            "tickfont": {"color": INK, "size": 12},
            "tickangle": 0,
            "ticklabeloverflow": "allow",
        },
        margin={"l": 46, "r": 34},
        yaxis={"range": [-0.1, 1.1], "visible": False},
        shapes=[{**shape.to_plotly_json(), "line": {"color": QUIET, "width": 1}} for shape in drawn.layout.shapes],
        annotations=[
            {**each.to_plotly_json(), "text": plain(each.text), "font": {"color": QUIET, "size": 11}, "bgcolor": PAPER}
            for each in drawn.layout.annotations
        ],
    )
    for step, colour in enumerate(SCALE):
        inside = [trace for trace in lines if _step(sign * trace.y[0] + (sign < 0)) == step]
        figure.add_scatter(
            x=[x for trace in inside for x in (*trace.x, None)],
            y=[y for trace in inside for y in (*trace.y, None)],
            customdata=[[plain(label), plain(text)] for t in inside for label, text in (*t.customdata, ("", ""))],
            mode="lines",
            line={"color": colour, "width": (1 + step / 2) / (1 if len(lines) <= MANY else 3)},
            showlegend=False,
            hovertemplate="%{customdata[0]}: %{customdata[1]}<extra></extra>",
        )
    return figure


def _axis(log: bool) -> dict[str, Any]:
    return {"type": "log", "dtick": 1, "exponentformat": "power"} if log else {}


def _setting(value: float) -> str:
    return f"{value:g}"


def _step(height: float) -> int:
    """Which colour a value gets whose place between worst and best is `height`, in [0, 1]."""
    return min(int(height * len(SCALE)), len(SCALE) - 1)

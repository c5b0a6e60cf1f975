"""Interactive plots of a search, drawn from values that other modules computed; no arithmetic, no reading."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go  # type: ignore[import-untyped]  # ships no types

from analysis.convergence import Curve
from analysis.depth import Comparison
from analysis.importance import Importance
from analysis.interaction import Interaction
from analysis.plot_style import BLUE, INK, ORANGE, PALETTE, PAPER, QUIET, SCALE, STATUS, canvas, plain
from analysis.pruning import Prospect
from analysis.selection import Finalist
from analysis.utilisation import Utilisation

MANY = 150
"""Above so many marks each is drawn smaller and fainter."""
NUMBER = ".4~g"  # of a value, in hover texts


def draw_finalists(finalists: Sequence[Finalist], searched: Sequence[float], metric: str) -> go.Figure:
    """A row per finalist: its reruns, their mean with its standard error, and the value that the search had seen."""
    names = [f"trial {each.trial.number}" for each in finalists]
    figure = canvas(110 + 52 * len(names), xaxis_title=plain(metric), yaxis={"autorange": "reversed"})
    figure.add_scatter(
        x=list(searched),
        y=names,
        mode="markers",
        name="value in the search",
        hovertemplate=_hover("in the search"),
        marker={"symbol": "diamond-open", "size": 10, "color": QUIET, "line": {"width": 1.5}},
    )
    figure.add_scatter(
        x=[each.mean for each in finalists],
        y=names,
        mode="markers",
        name="mean ± standard error",
        marker={"symbol": "line-ns", "size": 20, "line": {"width": 3, "color": ORANGE}},
        error_x={"array": [each.standard_error for each in finalists], "color": ORANGE, "thickness": 2, "width": 5},
        hovertemplate=_hover("mean"),
    )
    figure.add_scatter(
        x=[value for each in finalists for value in each.values],
        y=[name for name, each in zip(names, finalists, strict=True) for _ in each.values],
        mode="markers",
        name="a rerun on a fresh seed",
        marker={"size": 9, "color": BLUE},
        hovertemplate=_hover("rerun"),
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
        hovertemplate=_hover_point(),
        marker=_dot(len(comparison.value)),
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


def draw_convergence(curve: Curve, metric: str, spent: str) -> go.Figure:
    """Every result and the best so far against what was spent; points without a value are not drawn."""
    figure = canvas(340, xaxis={"title": {"text": spent}, "rangemode": "tozero"}, yaxis_title=plain(metric))
    figure.add_scatter(
        x=curve.spent,
        y=curve.value,
        mode="markers",
        name="each result",
        marker=_dot(len(curve.value)),
        hovertemplate=_hover_point(),
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
        hovertemplate=_hover_point(),
    )


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
    figure = canvas(90 + 46 * len(metrics), xaxis_title=plain(name), yaxis={"autorange": "reversed"})
    figure.add_scatter(
        x=value, y=[plain(run) for run in metrics], mode="markers", marker={"size": 9, "color": BLUE},
        error_x={"array": high - value, "arrayminus": value - low, "color": BLUE, "thickness": 2, "width": 5},
        hovertemplate=_hover(plain(name)), showlegend=False,
    )  # fmt: skip
    return figure


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
        hovertemplate=_hover("pruned at"),
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
        hovertemplate=_hover("with the median gain"),
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
    figure = canvas(
        120 + 34 * utilisation.lanes,
        xaxis={"title": {"text": "used time of the study, minutes"}, "rangemode": "tozero"},
        yaxis={"title": {"text": "lane"}, "tickformat": "d", "dtick": 1, "autorange": "reversed", "showgrid": False},
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


def _dot(count: int) -> dict[str, Any]:
    """The mark of one of so many results."""
    return {"color": QUIET, **({"size": 6, "opacity": 0.75} if count <= MANY else {"size": 4, "opacity": 0.3})}


def _hover(what: str) -> str:
    return f"%{{y}}, {what}: %{{x:{NUMBER}}}<extra></extra>"


def _hover_point() -> str:
    return f"%{{y:{NUMBER}}} at %{{x:{NUMBER}}}<extra></extra>"


def _axis(log: bool) -> dict[str, Any]:
    return {"type": "log", "dtick": 1, "exponentformat": "power"} if log else {}


def _setting(value: float) -> str:
    return f"{value:g}"


def _step(height: float) -> int:
    """Which colour a value gets whose place between worst and best is `height`, in [0, 1]."""
    return min(int(height * len(SCALE)), len(SCALE) - 1)

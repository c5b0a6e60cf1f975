"""Pictures of a search, drawn from values that `analysis.convergence` and `analysis.depth` computed."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.convergence import Curve
from analysis.depth import Comparison
from analysis.figures import BLUE, ORANGE, QUIET, STYLE

DOTS: Any = {"linestyle": "", "marker": "o", "markersize": 4.5, "markeredgewidth": 0, "color": QUIET, "alpha": 0.65}


def draw_convergence(curve: Curve, path: Path, metric: str, spent: str) -> None:
    """Every result and the best so far against what was spent; PNG, SVG or PDF by the path's ending.

    Args:
        curve: Points without a value are not drawn.
        path: Written or replaced.
        metric: Name of the objective.
        spent: What `curve.spent` counts, with its unit: `trials`, `epochs trained`, `worker-seconds`.
    """
    with _axes(path) as axes:
        axes.plot(curve.spent, curve.value, **DOTS, label="each result")
        axes.step(curve.spent, curve.best, where="post", color=BLUE, label="best so far")
        axes.set(xlabel=spent, ylabel=metric)


def draw_comparison(comparison: Comparison, path: Path, metric: str, name: str, condition: str) -> None:
    """Every trial, and per setting the mean with its 95 % interval; PNG, SVG or PDF by the path's ending.

    Args:
        comparison: A setting with one trial has no interval.
        path: Written or replaced.
        metric: Name of the objective.
        name: Name of the hyperparameter.
        condition: Under which trials are compared: `after 3 epochs`, `within 60 s of training`.
    """
    with _axes(path) as axes:
        axes.plot(comparison.settings, comparison.mean, "D", color=ORANGE, markersize=7, label="mean")
        axes.vlines(comparison.settings, comparison.low, comparison.high, color=ORANGE, label="95 % interval")
        axes.plot(comparison.setting, comparison.value, **{**DOTS, "alpha": 1}, label=f"a trial {condition}")
        axes.set_xticks(comparison.settings)
        axes.margins(x=0.1)
        axes.set(xlabel=name, ylabel=metric)


@contextmanager
def _axes(path: Path) -> Iterator[Axes]:
    """Axes of a figure of its own, with a legend above them, saved when the block ends; pyplot's state stays alone."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(6.4, 4), layout="constrained")
        axes = figure.subplots()
        yield axes
        figure.legend(loc="outside upper center", ncols=3)
        figure.savefig(path)

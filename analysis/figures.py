"""Pictures of the final evaluation, drawn from values that `analysis.evaluation` computed."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from numpy.typing import NDArray

from analysis.evaluation import (
    MANY_CLASSES,
    Confusion,
    Reliability,
    Roc,
    TrainingCurve,
    confusion,
    read_evaluation,
    reliability,
    roc_curves,
    stated,
    training_curve,
)
from analysis.plot_style import BLUE, ORANGE, PALETTE

INK, QUIET, FAINT = "#333333", "#767676", "#E4E4E4"

STYLE: Any = {
    "text.usetex": False,
    "text.parse_math": False,  # a `$` in a class name is a dollar
    "font.family": "sans-serif",
    "font.size": 10,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": QUIET,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "axes.titlepad": 22,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": FAINT,
    "xtick.color": QUIET,
    "ytick.color": QUIET,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "lines.linewidth": 1.8,
    "legend.frameon": False,
    "savefig.dpi": 160,
    "savefig.bbox": "tight",
    "savefig.pad_inches": 0.15,
}

LONGEST_NAME = 22
"""Characters of a class name that are shown."""


def draw_evaluation(final_folder: Path) -> list[Path]:
    """Draws what `read_evaluation` reads into `final/figures/`.

    Returns:
        The PNG files written: confusion_matrix, accuracy_by_epoch, loss_by_epoch, roc, reliability.
    """
    evaluation = read_evaluation(final_folder)
    folder = Path(final_folder) / "figures"
    folder.mkdir(exist_ok=True)
    files = [folder / f"{name}.png" for name in ("confusion_matrix", "accuracy_by_epoch", "loss_by_epoch")]
    draw_confusion(confusion(evaluation.test), files[0])
    for name, file in zip(("accuracy", "loss"), files[1:], strict=True):
        draw_training(training_curve(evaluation.history, name), evaluation.best_epoch, file)
    files += [folder / "roc.png", folder / "reliability.png"]
    draw_roc(roc_curves(evaluation.test, evaluation.positive_class), evaluation.metrics, files[3])
    draw_reliability(reliability(evaluation.test), evaluation.metrics, files[4])
    return files


def draw_confusion(confusion: Confusion, path: Path) -> None:
    """Heat map of shares of each actual class, with counts and percentages in the cells."""
    size = min(max(3.6, 1.0 + 0.85 * len(confusion.classes)), 12)
    with _canvas(path, size * 1.25, size) as axes:
        _title(axes, "Actual against predicted class", f"test set, {confusion.counts.sum()} images")
        image = axes.imshow(np.ma.masked_invalid(confusion.shares), cmap="Blues", vmin=0, vmax=1)
        _name_classes(axes, [shown(name) for name in confusion.classes])
        if len(confusion.classes) <= MANY_CLASSES:
            _fill_cells(axes, confusion)
        bar = axes.figure.colorbar(image, ax=axes, shrink=0.7, format=PercentFormatter(1))
        bar.set_label("share of the actual class")
        bar.outline.set_visible(False)


def draw_training(curve: TrainingCurve, best_epoch: int | None, path: Path) -> None:
    """A score by epoch on training and validation images, the best epoch marked."""
    with _canvas(path, 5.6, 3.6) as axes:
        note = "final training" if best_epoch is None else f"dotted: best epoch, {best_epoch}"
        _title(axes, f"{curve.name.capitalize()} by epoch", note)
        marker = "o" if len(curve.epochs) <= 30 else None
        for name, values, colour in (("training", curve.train, BLUE), ("validation", curve.validation, ORANGE)):
            if not np.isnan(values).all():
                axes.plot(curve.epochs, values, color=colour, marker=marker, markersize=3.5, label=name)
        if best_epoch is not None:
            axes.axvline(best_epoch, color=QUIET, linewidth=1, linestyle=":")
        axes.set(xlabel="epoch", ylabel=curve.name, xlim=(curve.epochs.min() - 0.5, curve.epochs.max() + 0.5))
        axes.set_ylim(**({"bottom": 0} if curve.name == "loss" else {"top": 1.0}))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.grid(axis="y")
        axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2, borderaxespad=0)


def draw_roc(curves: Sequence[Roc], metrics: Mapping[str, Any], path: Path) -> None:
    """Curves of one class against the rest; with a single one its interval and operating point as well.

    Args:
        curves: Of the positive class, or of every class.
        metrics: The document `metrics.json`: `auc`, `sensitivity`, `specificity`, `threshold`.
        path: PNG file.
    """
    single = len(curves) == 1
    with _canvas(path, 4.8, 4.8) as axes:
        _title(axes, f"{'AUC' if single else 'Macro AUC'} {stated(metrics['auc'])}", _test_note(metrics))
        axes.plot([0, 1], [0, 1], color=QUIET, linewidth=1, linestyle="--", label="chance")
        for curve, line in zip(curves, _lines(curves), strict=True):
            axes.plot(curve.false_positive_rate, curve.true_positive_rate, **line)
        if single:
            _mark_operating_point(axes, metrics)
        axes.set(xlabel="1 - specificity", ylabel="sensitivity", xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect=1)
        axes.grid()
        axes.legend(loc="lower right", fontsize=9)


def draw_reliability(reliability: Reliability, metrics: Mapping[str, Any], path: Path) -> None:
    """Accuracy against confidence by bin, above the number of images in each bin.

    Args:
        reliability: Bins of confidence.
        metrics: The document `metrics.json`: `expected_calibration_error`.
        path: PNG file.
    """
    edges, filled = reliability.edges, np.flatnonzero(reliability.counts)
    with _canvas(path, 4.8, 5.4, nrows=2, sharex=True, gridspec_kw={"height_ratios": [3, 1], "hspace": 0.1}) as (
        above,
        below,
    ):
        error = stated(metrics["expected_calibration_error"])
        _title(above, f"Expected calibration error {error}", _test_note(metrics))
        above.plot([0, 1], [0, 1], color=QUIET, linewidth=1, linestyle="--", label="accuracy = confidence")
        confidence, accuracy = reliability.confidence[filled], reliability.accuracy[filled]
        above.vlines(confidence, confidence, accuracy, color=ORANGE, linewidth=1.5, label="gap")
        above.plot(confidence, accuracy, "o", color=BLUE, markersize=6, label="accuracy in the bin")
        above.set(ylabel="accuracy", ylim=(-0.02, 1.02))
        above.grid()
        above.legend(fontsize=9)
        bars = below.bar(edges[:-1], reliability.counts, np.diff(edges), align="edge", color=BLUE, edgecolor="white")
        below.bar_label(bars, [str(count) if count else "" for count in reliability.counts], fontsize=8, padding=1)
        below.set(xlabel="confidence (probability of the most probable class)", ylabel="images")
        below.set_xlim(edges[filled[0]] if len(filled) else 0, 1)
        below.margins(y=0.25)


def draw_mistakes(mistakes: pd.DataFrame, images: Mapping[str, NDArray[np.uint8]], path: Path) -> None:
    """The images that were predicted wrong with the most confidence, each with what it was called and what it is.

    Args:
        mistakes: Of `confident_mistakes`; at least one.
        images: By `file`: [height, width, 1 or 3], 0 to 255.
        path: PNG file.
    """
    columns = min(4, len(mistakes))
    rows = -(-len(mistakes) // columns)
    with _canvas(path, max(4.4, 2.5 * columns), 3.1 * rows, nrows=rows, ncols=columns, squeeze=False) as grid:
        for axes in grid.flat:
            axes.set_axis_off()
        for axes, mistake in zip(grid.flat, mistakes.to_dict("records"), strict=False):
            pixels = images[mistake["file"]]
            axes.imshow(pixels.squeeze(-1) if pixels.shape[-1] == 1 else pixels, cmap="gray", vmin=0, vmax=255)
            axes.set_title(f"{shown(mistake['predicted'])} {mistake['confidence']:.3f}", color=ORANGE, pad=17)
            _below_title(axes, f"is {shown(mistake['class'])}")
            axes.text(0, -0.03, _tail(mistake["file"]), transform=axes.transAxes, fontsize=7, color=QUIET, va="top")


def shown(name: str) -> str:
    """A class name as figures show it: one line, at most `LONGEST_NAME` characters."""
    line = "".join(character if character.isprintable() else " " for character in name).strip()
    return line if len(line) <= LONGEST_NAME else line[: LONGEST_NAME - 1] + "…"


@contextmanager
def _canvas(path: Path, width: float, height: float, **grid: Any) -> Iterator[Any]:
    """Axes of a figure of its own, `width` x `height` inches, saved when the block ends; pyplot's state stays alone."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width, height))
        yield figure.subplots(**grid)
        figure.savefig(path)


def _title(axes: Axes, headline: str, note: str) -> None:
    axes.set_title(headline)
    _below_title(axes, note, 7)


def _below_title(axes: Axes, note: str, points: int = 4) -> None:
    axes.annotate(note, (0, 1), xytext=(0, points), xycoords="axes fraction", textcoords="offset points", color=QUIET)


def _tail(file: str, most: int = 38) -> str:
    """The end of a path on one line; that is where paths differ."""
    line = "".join(character if character.isprintable() else " " for character in file)
    return line if len(line) <= most else f"…{line[1 - most :]}"


def _test_note(metrics: Mapping[str, Any]) -> str:
    return f"test set; [{metrics['bootstrap']['level']:.0%} interval over groups]"


def _name_classes(axes: Axes, names: Sequence[str]) -> None:
    crowded = max(map(len, names)) * len(names) > 40
    places = range(len(names))
    axes.set_xticks(places, names, rotation=40 if crowded else 0, ha="right" if crowded else "center")
    axes.set_yticks(places, names)
    axes.set(xlabel="predicted", ylabel="actual")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def _fill_cells(axes: Axes, confusion: Confusion) -> None:
    for (row, column), count in np.ndenumerate(confusion.counts):
        share = confusion.shares[row, column]
        percentage = "–" if np.isnan(share) else f"{share:.1%}"
        colour = "white" if share > 0.55 else INK
        axes.text(column, row, f"{count}\n{percentage}", ha="center", va="center", color=colour)


def _lines(curves: Sequence[Roc]) -> list[dict[str, Any]]:
    """Colour, dash and label of each curve; too many to tell apart become one faint bundle."""
    if len(curves) > MANY_CLASSES:
        bundle = {"color": BLUE, "alpha": 0.35, "linewidth": 1}
        return [bundle | {"label": f"each of {len(curves)} classes"}, *[bundle] * (len(curves) - 1)]
    areas = ["" if len(curves) == 1 or np.isnan(curve.auc) else f", AUC {curve.auc:.3f}" for curve in curves]
    return [
        {
            "label": f"class {shown(curve.name)}{area}",
            "color": PALETTE[position % len(PALETTE)],
            "linestyle": ("-", "--")[position // len(PALETTE)],
        }
        for position, (curve, area) in enumerate(zip(curves, areas, strict=True))
    ]


def _mark_operating_point(axes: Axes, metrics: Mapping[str, Any]) -> None:
    sensitivity, specificity = metrics["sensitivity"]["value"], metrics["specificity"]["value"]
    if sensitivity is None or specificity is None:
        return
    label = f"threshold {metrics['threshold']:.3f}\nsensitivity {stated(metrics['sensitivity'])}"
    label += f"\nspecificity {stated(metrics['specificity'])}"
    axes.plot([1 - specificity], [sensitivity], "o", color=ORANGE, markersize=8, label=label, zorder=3, clip_on=False)

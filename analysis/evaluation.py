"""What the final evaluation wrote into `final/`, read and counted: plain values for figures and the model card."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn import metrics as sklearn_metrics

from analysis.text_table import read_text_table

Floats = NDArray[np.float64]

TEXT_COLUMNS = ["file", "group", "part", "class", "predicted"]
PROBABILITY = "probability_"
FEW_GROUPS = 30
"""Below this many test groups with a class, intervals from resampling groups are too narrow, and said to be."""
MANY_CLASSES = 12
"""Above this many classes numbers in cells and names in legends do not fit."""


@dataclass(frozen=True)
class Evaluation:
    """The three files of a final evaluation."""

    predictions: pd.DataFrame
    """As `read_predictions` gives it, test and validation."""
    history: pd.DataFrame
    """One row per epoch; empty cells are NaN."""
    metrics: dict[str, Any]
    """`metrics.json`: each metric of the test set as {"value", "interval"}, and facts beside them."""

    @property
    def test(self) -> pd.DataFrame:
        return self.predictions[self.predictions["part"] == "test"]

    @property
    def positive_class(self) -> str | None:
        """None with more than two classes."""
        return self.metrics.get("positive_class")

    @property
    def best_epoch(self) -> int | None:
        """The epoch `metrics.json` names; else that of the lowest validation loss; None without validation."""
        if (named := self.metrics.get("best_epoch")) is not None:
            return int(named)
        curve = training_curve(self.history, "loss")
        return None if np.isnan(curve.validation).all() else int(curve.epochs[np.nanargmin(curve.validation)])


@dataclass(frozen=True)
class Confusion:
    """Rows are actual classes, columns predicted ones."""

    classes: list[str]
    counts: NDArray[np.integer]
    shares: Floats
    """Of the row's images, in [0, 1]; NaN in the row of a class without images."""


@dataclass(frozen=True)
class Roc:
    """One class against the rest. The curve runs from (0, 0) to (1, 1); without pairs it is empty and `auc` NaN."""

    name: str
    false_positive_rate: Floats
    true_positive_rate: Floats
    auc: float


@dataclass(frozen=True)
class Reliability:
    """Confidence (probability of the most probable class) and accuracy in equally wide bins; NaN in empty ones."""

    edges: Floats
    """[bins + 1]; a bin holds its upper edge."""
    confidence: Floats
    accuracy: Floats
    counts: NDArray[np.integer]


@dataclass(frozen=True)
class TrainingCurve:
    """A score by epoch, on training and validation images; NaN where it was not measured."""

    name: str
    epochs: NDArray[np.integer]
    train: Floats
    validation: Floats


def read_evaluation(final_folder: Path) -> Evaluation:
    """Reads `predictions.csv`, `history.csv` and `metrics.json`.

    Raises:
        FileNotFoundError: One of them is missing.
        ValueError: `predictions.csv` is not what an evaluation writes.
    """
    final_folder = Path(final_folder)
    return Evaluation(
        predictions=read_predictions(final_folder / "predictions.csv"),
        history=pd.read_csv(final_folder / "history.csv"),
        metrics=json.loads((final_folder / "metrics.json").read_text(encoding="utf-8")),
    )


def read_predictions(path: Path) -> pd.DataFrame:
    """One row per image: `file`, `group`, `part`, `class`, `predicted` as text, `probability_<class>` as float64.

    A class may be called `NA` or `1`: text stays text, and a float the float that was written.

    Raises:
        ValueError: A column is missing, or a class has no column of probabilities.
    """
    table = read_text_table(path)
    if missing := [name for name in TEXT_COLUMNS if name not in table]:
        raise ValueError(f"{path}: must have the columns {TEXT_COLUMNS}, but lacks {missing}; evaluate again")
    classes = class_names(table)
    if unknown := sorted({*table["class"], *table["predicted"]} - {*classes}):
        raise ValueError(f"{path}: must have a column `{PROBABILITY}<class>` for every class, but lacks {unknown}")
    return table.astype({PROBABILITY + name: float for name in classes})


def stated(metric: Mapping[str, Any]) -> str:
    """`0.850 [0.790, 0.900]`; without the interval where there is none, `not defined` where there is no value."""
    low, high = metric["interval"]
    if metric["value"] is None:
        return "not defined"
    return f"{metric['value']:.3f}" + ("" if low is None or high is None else f" [{low:.3f}, {high:.3f}]")


def doubts(evaluation: Evaluation) -> list[str]:
    """Why its intervals say less than they seem to, a sentence each.

    Resampling groups tells too little where few hold a class, however many hold the others, and nothing at all where
    none holds a mistake; the rule of three (Hanley and Lippman-Hand 1983) does.
    """
    groups = evaluation.test.groupby("class")["group"].nunique()
    sentences = []
    if len(groups) and (fewest := int(groups.min())) < FEW_GROUPS:
        sentences.append(
            f"Few test groups hold {groups.idxmin()} ({fewest}), so the intervals are too narrow: take them as a lower "
            "bound of the uncertainty."
        )
    intervals = [m["interval"] for m in evaluation.metrics.values() if isinstance(m, dict) and "interval" in m]
    if any(low is not None and low == high for low, high in intervals):
        sentences.append(
            "An interval without width only says that all resamples agree: where none of n test groups holds a "
            "mistake, some 3 in n of others may still."
        )
    return sentences


def class_names(predictions: pd.DataFrame) -> list[str]:
    """Names in the order of the columns of probabilities."""
    return [column.removeprefix(PROBABILITY) for column in map(str, predictions) if column.startswith(PROBABILITY)]


def confusion(predictions: pd.DataFrame) -> Confusion:
    """Actual against predicted, with the decision the evaluation made (its threshold, not 0.5)."""
    classes = class_names(predictions)
    counts = sklearn_metrics.confusion_matrix(predictions["class"], predictions["predicted"], labels=classes)
    totals = counts.sum(axis=1, keepdims=True)
    return Confusion(classes, counts, np.where(totals > 0, counts / np.maximum(totals, 1), math.nan))


def roc_curves(predictions: pd.DataFrame, positive_class: str | None) -> list[Roc]:
    """The curve of the positive class, or one for each class where there is no positive one."""
    return [_roc(predictions, name) for name in ([positive_class] if positive_class else class_names(predictions))]


def reliability(predictions: pd.DataFrame, bins: int = 15) -> Reliability:
    """The bins behind the expected calibration error (Guo et al. 2017)."""
    probabilities = _probabilities(predictions)
    confidence, names = probabilities.max(axis=1), np.array(class_names(predictions), dtype=object)
    correct = names[probabilities.argmax(axis=1)] == predictions["class"].to_numpy(dtype=object)
    edges = np.linspace(0, 1, bins + 1)
    place = np.searchsorted(edges[1:-1], confidence)
    counts = np.bincount(place, minlength=bins)
    mean_confidence, accuracy = (
        np.divide(np.bincount(place, weights, bins), counts, out=np.full(bins, math.nan), where=counts > 0)
        for weights in (confidence, correct)
    )
    return Reliability(edges, mean_confidence, accuracy, counts)


def training_curve(history: pd.DataFrame, name: str) -> TrainingCurve:
    """The column `name` and `val_<name>`; a column that is missing was not measured."""
    train, validation = (
        history[column].to_numpy(dtype=float) if column in history else np.full(len(history), math.nan)
        for column in (name, f"val_{name}")
    )
    return TrainingCurve(name, history["epoch"].to_numpy(dtype=int), train, validation)


def confident_mistakes(predictions: pd.DataFrame, count: int = 10) -> pd.DataFrame:
    """The wrong predictions with the highest probability, highest first, then by file.

    Returns:
        Columns `file`, `group`, `class`, `predicted`, `confidence` (probability of the predicted class).
    """
    wrong = predictions[predictions["class"] != predictions["predicted"]]
    chosen = np.array([class_names(predictions).index(name) for name in wrong["predicted"]], dtype=int)
    confidence = _probabilities(wrong)[np.arange(len(wrong)), chosen]
    table = wrong[["file", "group", "class", "predicted"]].assign(confidence=confidence)
    return table.sort_values(["confidence", "file"], ascending=[False, True], ignore_index=True).head(count)


def _roc(predictions: pd.DataFrame, name: str) -> Roc:
    is_class = (predictions["class"] == name).to_numpy()
    if is_class.all() or not is_class.any():
        return Roc(name, np.empty(0), np.empty(0), math.nan)
    false_positive_rate, true_positive_rate, _ = sklearn_metrics.roc_curve(is_class, predictions[PROBABILITY + name])
    area = sklearn_metrics.auc(false_positive_rate, true_positive_rate)
    return Roc(name, false_positive_rate, true_positive_rate, float(area))


def _probabilities(predictions: pd.DataFrame) -> Floats:
    return predictions[[PROBABILITY + name for name in class_names(predictions)]].to_numpy(dtype=float)

"""Scores from labels and probabilities, and intervals around them. Plain NumPy: it runs twice in every epoch."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

REPEATS = 2000
"""Resamples behind every interval of the final evaluation."""
LEVEL = 0.95
"""Share of resamples that an interval of the final evaluation covers."""
SMALLEST_PROBABILITY = 1e-7
"""Probabilities are clipped here before the logarithm, as Keras does (`keras.config.epsilon`)."""

Labels = NDArray[np.integer]
Floats = NDArray[np.floating]


@dataclass(frozen=True)
class Interval:
    """A value and how far resampling moves it; `low` and `high` are NaN where that cannot be known.

    `low <= value <= high` is usual, not certain: a score that resampling shifts, such as a calibration error near 0,
    can lie outside.
    """

    value: float
    low: float
    high: float
    undefined_resamples: int = 0
    """Resamples left out because the score did not exist in them (a class was missing)."""


def decide(probabilities: Floats, positive: int | None, threshold: float = 0.5) -> Labels:
    """The class each image is called, [n]: the most probable one, or with two classes what the threshold says.

    Args:
        probabilities: [n, classes].
        positive: Index of the positive class, chosen where its probability is at least `threshold`; None: argmax.
        threshold: In float64, so that a stored threshold between two float32 neighbours still separates them.
    """
    if positive is None:
        return np.argmax(probabilities, axis=1)
    return np.where(np.asarray(probabilities[:, positive], dtype=np.float64) >= threshold, positive, 1 - positive)


def scores(
    labels: Labels,
    probabilities: Floats,
    positive: int | None,
    threshold: float = 0.5,
    sample_loss: Floats | None = None,
) -> dict[str, float]:
    """Every score that an epoch reports. Never raises for what images or network may do.

    Args:
        labels: Class indices [n].
        probabilities: [n, classes], rows sum to 1.
        positive: Index of the positive class when there are two; None: scores are macro averages over the classes.
        threshold: From which probability on an image is called positive; unused without a positive class.
        sample_loss: Loss of each image [n], where the network has it from its logits; default: from `probabilities`.

    Returns:
        `accuracy`, `balanced_accuracy`, `auc`, `f1`, `sensitivity`, `specificity`, all in [0, 1], and `loss`, the mean
        negative log likelihood in nats. `auc` is NaN as soon as one class has no image or a probability is NaN; with
        more than two classes it is one-vs-rest. A rate without any image to count is NaN for its class and left out
        of averages: `sensitivity` is NaN without positive images, `balanced_accuracy` speaks of the classes present.
    """
    labels, probabilities = np.asarray(labels, dtype=np.intp), np.asarray(probabilities, dtype=np.float64)
    rates = _class_rates(_confusion(labels, decide(probabilities, positive, threshold), probabilities.shape[1]))
    of_interest = slice(None) if positive is None else slice(positive, positive + 1)
    return {
        "accuracy": rates["accuracy"].item(),
        "balanced_accuracy": _mean_where_defined(rates["sensitivity"]),
        "auc": _auc(labels, probabilities, positive),
        **{name: _mean_where_defined(rates[name][of_interest]) for name in ("f1", "sensitivity", "specificity")},
        "loss": _mean(_negative_log_likelihood(labels, probabilities) if sample_loss is None else sample_loss),
    }


def expected_calibration_error(labels: Labels, probabilities: Floats, bins: int = 15) -> float:
    """Mean distance between confidence and accuracy over equally wide bins of confidence, weighted by their images.

    Confidence is the probability of the most probable class; bin m holds ((m - 1) / bins, m / bins]. In [0, 1], NaN
    without images. Biased upwards when bins hold few images. Guo et al. 2017, "On Calibration of Modern Neural
    Networks", equation 3.
    """
    confidence = np.asarray(probabilities, dtype=np.float64).max(axis=1)
    correct = np.argmax(probabilities, axis=1) == labels
    inner_edges = np.linspace(0, 1, bins + 1)[1:-1]
    gaps = np.bincount(np.searchsorted(inner_edges, confidence), weights=correct - confidence, minlength=bins)
    return float(np.abs(gaps).sum() / len(confidence)) if len(confidence) else math.nan


def brier(labels: Labels, probabilities: Floats) -> float:
    """Mean squared distance between probabilities and what came true (Brier 1950); NaN without images.

    Two classes: of one class's probability, in [0, 1]. More: summed over the classes, in [0, 2], as scikit-learn does.
    """
    truth = np.eye(probabilities.shape[1])[labels]
    distances = ((np.asarray(probabilities, dtype=np.float64) - truth) ** 2).sum(axis=1)
    return _mean(distances) / (2 if probabilities.shape[1] == 2 else 1)


def operating_point(labels: Labels, probabilities: Floats, positive: int) -> float:
    """The threshold with the largest sensitivity + specificity - 1 (Youden 1950). For validation images only.

    It lies midway between the two neighbouring scores it separates, so a small change of either moves it little.
    Of several equally good ones the nearest to 0.5 is taken, then the lower. 0.5 where none beats chance: a class is
    missing, or all probabilities are equal. Probabilities must be finite.
    """
    cuts, position = np.unique(np.asarray(probabilities[:, positive], dtype=np.float64), return_inverse=True)
    is_positive = np.asarray(labels) == positive
    missed = np.cumsum(np.bincount(position[is_positive], minlength=len(cuts)))[:-1]
    spared = np.cumsum(np.bincount(position[~is_positive], minlength=len(cuts)))[:-1]
    # Youden's J times both class sizes is a whole number, so equally good thresholds tie exactly.
    advantage = spared * is_positive.sum() - missed * (~is_positive).sum()
    if not np.any(advantage > 0):
        return 0.5
    best = np.flatnonzero(advantage == advantage.max())
    middle = (cuts[best] + cuts[best + 1]) / 2
    thresholds = np.where(middle > cuts[best], middle, cuts[best + 1])  # adjacent floats have nothing between them
    return float(thresholds[np.argmin(np.abs(thresholds - 0.5))])


def bootstrap_intervals(
    labels: Labels,
    probabilities: Floats,
    groups: ArrayLike,
    statistic: Callable[[Labels, Floats], Mapping[str, float]],
    *,
    seed: int,
    repeats: int = REPEATS,
    level: float = LEVEL,
) -> dict[str, Interval]:
    """Percentile intervals from resampling whole groups with replacement (the cluster bootstrap).

    Images of one group are alike, so resampling single images would promise too much. Field and Welsh 2007,
    "Bootstrapping clustered data", J. R. Statist. Soc. B 69; with few groups (some 20) it is still too narrow.

    Args:
        labels: Class indices [n].
        probabilities: [n, classes].
        groups: Group of each image [n]; compared as text.
        statistic: Scores of a resample of the images; NaN where one does not exist.
        seed: Same seed, same intervals.
        repeats: Number of resamples.
        level: Share of the resamples inside an interval.

    Returns:
        For each score its value on the images themselves and its interval, resamples with NaN left out and counted.
        A single group holds no variation between groups: `low` and `high` are NaN.
    """
    labels, probabilities = np.asarray(labels), np.asarray(probabilities, dtype=np.float64)
    resamples = _group_resamples(np.asarray(groups).astype(str), np.random.default_rng(seed), repeats)
    draws = [statistic(labels[chosen], probabilities[chosen]) for chosen in resamples]
    return {
        name: _percentile_interval(value, np.array([draw[name] for draw in draws]), level)
        for name, value in statistic(labels, probabilities).items()
    }


def evaluate_part(
    labels: Labels, probabilities: Floats, groups: ArrayLike, positive: int | None, threshold: float, seed: int
) -> dict[str, Interval]:
    """All scores of one part of the data, each with its interval; arguments as in `scores` and `bootstrap_intervals`.

    Returns:
        `accuracy`, `balanced_accuracy`, `auc`, `f1`, `sensitivity`, `specificity`, `expected_calibration_error`,
        `brier`, `loss`, in this order.
    """

    def statistic(labels: Labels, probabilities: Floats) -> dict[str, float]:
        of_decisions = scores(labels, probabilities, positive, threshold)
        loss = of_decisions.pop("loss")
        calibration = expected_calibration_error(labels, probabilities)
        return {
            **of_decisions,
            "expected_calibration_error": calibration,
            "brier": brier(labels, probabilities),
            "loss": loss,
        }

    return bootstrap_intervals(labels, probabilities, groups, statistic, seed=seed)


def metrics_document(
    test: Mapping[str, Interval], validation: Mapping[str, Interval], seed: int, facts: Mapping[str, Any]
) -> dict[str, Any]:
    """What `final/metrics.json` holds: JSON values only, NaN written as null.

    Args:
        test: From `evaluate_part`; each metric becomes a key of the document, {"value": v, "interval": [low, high]}.
        validation: The same for the validation images, under "validation"; may be empty.
        seed: The seed both were evaluated with.
        facts: Keys beside the metrics: `threshold` (float), `positive_class` (name or None), `classes` (names in the
            order of probabilities), `counts` ({"images": {part: {class: n}}, "groups": {part: n}}), `configuration`,
            and whatever else the evaluation knows.

    Raises:
        ValueError: A fact has the name of a metric.
    """
    document = {
        **_as_json(test),
        "validation": _as_json(validation),
        "bootstrap": {"repeats": REPEATS, "level": LEVEL, "seed": seed, "resampled": "groups"},
    }
    if taken := sorted(document.keys() & facts.keys()):
        raise ValueError(f"facts must have other names than what the document holds already, but got {taken}")
    return document | dict(facts)


def _confusion(labels: Labels, decided: Labels, classes: int) -> Labels:
    return np.bincount(labels * classes + decided, minlength=classes**2).reshape(classes, classes)


def _class_rates(confusion: Labels) -> dict[str, Floats]:
    hits, total = confusion.diagonal(), confusion.sum()
    actual, decided = confusion.sum(axis=1), confusion.sum(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        return {
            "accuracy": hits.sum() / total,
            "sensitivity": hits / actual,
            "specificity": (total - actual - decided + hits) / (total - actual),
            "f1": 2 * hits / (actual + decided),
        }


def _auc(labels: Labels, probabilities: Floats, positive: int | None) -> float:
    of_interest = range(probabilities.shape[1]) if positive is None else [positive]
    return _mean(np.array([_pair_share(probabilities[:, index], labels == index) for index in of_interest]))


def _pair_share(ranked: Floats, is_positive: NDArray[np.bool_]) -> float:
    """Share of (positive, negative) pairs in the right order, ties half (Hanley and McNeil 1982); NaN without pairs."""
    positives, negatives = ranked[is_positive], np.sort(ranked[~is_positive])
    pairs = len(positives) * len(negatives)
    if not pairs or np.isnan(ranked).any():
        return math.nan
    positives.sort()  # ordered queries find their place several times faster on many images
    below, not_above = negatives.searchsorted(positives), negatives.searchsorted(positives, side="right")
    return float((below.sum() + not_above.sum()) / (2 * pairs))


def _negative_log_likelihood(labels: Labels, probabilities: Floats) -> Floats:
    return -np.log(probabilities[np.arange(len(labels)), labels].clip(SMALLEST_PROBABILITY, 1))


def _mean(values: Floats) -> float:
    return float(np.mean(values)) if len(values) else math.nan


def _mean_where_defined(values: Floats) -> float:
    return _mean(values[~np.isnan(values)])


def _group_resamples(groups: NDArray[np.str_], generator: np.random.Generator, repeats: int) -> Iterator[Labels]:
    """Index arrays, one per resample, none when there is a single group."""
    _, group, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    members, starts = np.argsort(group, kind="stable"), np.cumsum(sizes) - sizes
    for _ in range(repeats if len(sizes) > 1 else 0):
        drawn = generator.integers(len(sizes), size=len(sizes))
        lengths = sizes[drawn]
        offsets = np.repeat(starts[drawn] - (np.cumsum(lengths) - lengths), lengths)
        yield members[offsets + np.arange(len(offsets))]


def _percentile_interval(value: float, draws: Floats, level: float) -> Interval:
    defined = draws[~np.isnan(draws)]
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2]) if len(defined) else (math.nan, math.nan)
    return Interval(value, float(low), float(high), len(draws) - len(defined))


def _as_json(block: Mapping[str, Interval]) -> dict[str, dict[str, Any]]:
    return {
        name: {"value": _or_null(interval.value), "interval": [_or_null(interval.low), _or_null(interval.high)]}
        | ({"undefined_resamples": interval.undefined_resamples} if interval.undefined_resamples else {})
        for name, interval in block.items()
    }


def _or_null(value: float) -> float | None:
    return value if math.isfinite(value) else None

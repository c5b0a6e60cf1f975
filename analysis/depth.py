"""Objective against freeze depth, or another number of which few values were tried, at equal epochs and equal time."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import accumulate
from statistics import median_low

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from search.config import Objective
from search.history import TrialRecord

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Comparison:
    """Trials side by side: n trials at k different settings of one hyperparameter.

    Attributes:
        setting: Shape (n,): each trial's setting, in the order of trials.
        value: Shape (n,): each trial's objective value; never NaN.
        settings: Shape (k,): the different settings, rising.
        count: Shape (k,): trials at each.
        mean: Shape (k,): mean value at each.
        low: Shape (k,): lower end of the mean's 95 % t-interval; NaN with one trial.
        high: Shape (k,): its upper end; NaN with one trial.
    """

    setting: Floats
    value: Floats
    settings: Floats
    count: Integers
    mean: Floats
    low: Floats
    high: Floats


def compare_at_epoch(
    trials: Iterable[TrialRecord], objective: Objective, epoch: int, name: str = "freeze_depth"
) -> Comparison:
    """Each trial's best value within its first `epoch` epochs; trials that ended earlier are left out.

    Where trials were pruned before `epoch`, those left are the better ones: at a setting with many pruned trials the
    mean flatters. At epoch 1 nobody is missing.
    """
    reached = [
        replace(trial, epochs=tuple(e for e in trial.epochs if e.epoch <= epoch))
        for trial in trials
        if any(e.epoch >= epoch for e in trial.epochs)
    ]
    return _compare(reached, objective, name)


def compare_at_train_seconds(
    trials: Iterable[TrialRecord], objective: Objective, seconds: float, name: str = "freeze_depth"
) -> Comparison:
    """Each trial's best value within its first `seconds` of training, validation and set-up not counted.

    A trial that ended earlier keeps what it reached; one that finished no epoch in that time is left out.
    """
    return _compare([_within(trial, seconds) for trial in trials], objective, name)


def seconds_of_first_epochs(trials: Iterable[TrialRecord]) -> float | None:
    """Training seconds within which every trial ended its first epoch, so that nobody is missing; None without any."""
    firsts = [trial.epochs[0].seconds.get("train", 0.0) for trial in trials if trial.epochs]
    return max(firsts, default=None) or None


def seconds_of_completed(trials: Iterable[TrialRecord]) -> float | None:
    """Training seconds of the median completed trial (the lower of two middle ones); None without any."""
    totals = [sum(e.seconds.get("train", 0.0) for e in trial.epochs) for trial in trials if trial.status == "completed"]
    return median_low(totals) or None if totals else None


@dataclass(frozen=True)
class Cost:
    """What a setting takes.

    Attributes:
        trainable_share: Of the weights, in [0, 1]; NaN when not reported.
        epoch_seconds: Of training, the median over all epochs at this setting; a trial's first epoch is left out where
            it has others, because graphs are made in it. NaN when not measured.
    """

    trainable_share: float
    epoch_seconds: float


def costs(trials: Iterable[TrialRecord], name: str = "freeze_depth") -> dict[float, Cost]:
    """What each setting takes, by rising setting; trials without epochs or the hyperparameter are left out."""
    seconds, shares = defaultdict[float, list[float]](list), dict[float, float]()
    for trial in trials:
        if trial.epochs and name in trial.parameters:
            setting = float(trial.parameters[name])
            shares[setting] = trial.epochs[-1].metrics.get("trainable_share", np.nan)
            seconds[setting] += [e.seconds["train"] for e in trial.epochs[1:] or trial.epochs if "train" in e.seconds]
    return {
        setting: Cost(shares[setting], float(np.median(seconds[setting])) if seconds[setting] else np.nan)
        for setting in sorted(shares)
    }


def _within(trial: TrialRecord, seconds: float) -> TrialRecord:
    used = accumulate(e.seconds.get("train", 0.0) for e in trial.epochs)
    return replace(trial, epochs=tuple(e for e, spent in zip(trial.epochs, used, strict=True) if spent <= seconds))


def _compare(trials: Iterable[TrialRecord], objective: Objective, name: str) -> Comparison:
    """Trials that lack the hyperparameter or a value are left out."""
    pairs = [
        (trial.parameters[name], best[1])
        for trial in trials
        if name in trial.parameters and (best := trial.best(objective))
    ]
    setting = np.array([pair[0] for pair in pairs], dtype=np.float64)
    value = np.array([pair[1] for pair in pairs], dtype=np.float64)
    settings, count = np.unique(setting, return_counts=True)
    groups = [value[setting == each] for each in settings]
    mean = np.array([group.mean() for group in groups], dtype=np.float64)
    half = np.array([_half_width(group) for group in groups], dtype=np.float64)
    return Comparison(setting, value, settings, count, mean, mean - half, mean + half)


def _half_width(values: Floats) -> float:
    """Half of the 95 % interval of a mean by Student's t with n - 1 degrees of freedom; NaN for one value."""
    if len(values) < 2:
        return float("nan")
    return float(stdtrit(len(values) - 1, 0.975) * values.std(ddof=1) / np.sqrt(len(values)))


def leading(comparison: Comparison, objective: Objective) -> tuple[int, list[float]] | None:
    """Position of the setting with the best mean among those with an interval, and the settings that it does not leave
    behind: whose intervals reach into its own, or that have none. None where no setting has two trials.
    """
    known = np.flatnonzero(comparison.count > 1)
    if not len(known):
        return None
    first = int(known[np.argmax(objective.sign * comparison.mean[known])])
    apart = (comparison.low > comparison.high[first]) | (comparison.high < comparison.low[first])
    return first, [float(setting) for setting in comparison.settings[~apart] if setting != comparison.settings[first]]

"""Objective against freeze depth, or another number of which few values were tried, at equal epochs and equal time."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import accumulate

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


def _within(trial: TrialRecord, seconds: float) -> TrialRecord:
    used = accumulate(e.seconds.get("train", 0.0) for e in trial.epochs)
    return replace(trial, epochs=tuple(e for e, spent in zip(trial.epochs, used, strict=True) if spent <= seconds))


def _compare(trials: Iterable[TrialRecord], objective: Objective, name: str) -> Comparison:
    """Trials that lack the hyperparameter or a value are left out."""
    pairs = [
        (trial.parameters[name], best[1])
        for trial in trials
        if name in trial.parameters and (best := trial.best(objective.metric, objective.direction))
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

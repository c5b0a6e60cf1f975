"""How fast a search got better: the best value so far by trial and by worker-second.

What a failed trial cost is in it; what it had reached is not, because it can win nothing.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from search.config import Objective
from search.history import Epoch, TrialRecord

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Curve:
    """A search in the order of what it spent.

    Attributes:
        spent: Shape (n,), not decreasing: trials or seconds used up to and including each point.
        value: Shape (n,): objective value of each point; NaN where there is none.
        best: Shape (n,): best of `value` up to and including each point; NaN before the first value.
    """

    spent: Floats
    value: Floats
    best: Floats


def best_by_trial(trials: Iterable[TrialRecord], objective: Objective) -> Curve:
    """One point per trial, by number; a trial's value is its best epoch's, NaN without any. `spent` counts trials."""
    ordered = sorted(trials, key=lambda trial: trial.key)
    bests = [None if t.status == "failed" else t.best(objective) for t in ordered]
    return _curve(range(1, len(bests) + 1), [best[1] if best else np.nan for best in bests], objective)


def best_by_worker_second(trials: Iterable[TrialRecord], objective: Objective) -> Curve:
    """One point per epoch and per failure, in the order reported. `spent` adds up the seconds that trials held workers.

    Counted from a trial's first start to its end by the study's clock, so work that was lost with a worker, and the
    wait for another one, is in it; the unfinished epoch of a running trial is not.
    """
    points = sorted(point for trial in trials for point in _held(trial, objective))
    return _curve(np.cumsum([held for _, held, _ in points]), [value for *_, value in points], objective)


def last_improvement(curve: Curve) -> int | None:
    """Position of the point at which `best` last got better, the first value included; None without a value."""
    known = np.flatnonzero(~np.isnan(curve.best))
    if not len(known):
        return None
    changed = known[1:][np.diff(curve.best[known]) != 0]
    return int(changed[-1] if len(changed) else known[0])


def _held(trial: TrialRecord, objective: Objective) -> list[tuple[float, float, float]]:
    """When, worker's seconds since the point before, value: of each epoch, and of a failure after the last one."""
    marks = [(e.at, _value(trial, e, objective)) for e in trial.epochs]
    if trial.left_at is None and trial.ended_at is not None and (not marks or trial.ended_at > marks[-1][0]):
        marks.append((trial.ended_at, np.nan))
    if trial.started_at is None:
        return []
    begins = [start for start, _ in trial.stints(0.0)]  # waits at rungs hold no worker
    moments = pairwise([trial.started_at, *(at for at, _ in marks)])
    starts = [max(start for start in (last, *begins) if start <= at) for last, at in moments]
    return [(at, at - start, value) for start, (at, value) in zip(starts, marks, strict=True)]


def _value(trial: TrialRecord, epoch: Epoch, objective: Objective) -> float:
    return np.nan if trial.status == "failed" else epoch.metrics.get(objective.metric, np.nan)


def _curve(spent: Iterable[float] | Floats, values: Sequence[float], objective: Objective) -> Curve:
    value = np.asarray(values, dtype=np.float64)
    better = np.fmax if objective.direction == "maximize" else np.fmin
    return Curve(np.fromiter(spent, dtype=np.float64), value, better.accumulate(value))

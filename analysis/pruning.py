"""What ending trials early saved, and whether one that was ended might have won."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from search.config import Objective
from search.history import TrialRecord

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Savings:
    """What pruned trials did not use.

    Attributes:
        pruned: Trials.
        epochs: Epochs that they would have run to the end of their budget.
        seconds: Worker-seconds of those epochs, each at the mean of its trial's own epochs: an estimate.
        epochs_run: Epochs that all trials of the search did run.
        seconds_run: Worker-seconds of those.
    """

    pruned: int
    epochs: int
    seconds: float
    epochs_run: int
    seconds_run: float


@dataclass(frozen=True)
class Prospect:
    """A pruned trial, and what completed trials gained after the same epoch.

    Attributes:
        epoch: Its last one.
        value: Its best value until then.
        needed: What it would have had to gain to equal the best completed trial; 0 or less when it was ahead.
        gains: Shape (n,): of each completed trial, how much better its best value got after that epoch; rising.
    """

    number: int
    epoch: int
    value: float
    needed: float
    gains: Floats

    @property
    def gained_as_much(self) -> int:
        """Completed trials that gained what it needed."""
        return int((self.gains >= self.needed).sum())


def savings(trials: Iterable[TrialRecord], epochs: int) -> Savings:
    """What pruning saved of a budget of so many epochs per trial."""
    trials = list(trials)
    pruned = [trial for trial in trials if trial.status == "pruned"]
    return Savings(
        pruned=len(pruned),
        epochs=sum(_left(trial, epochs) for trial in pruned),
        seconds=sum(_left(trial, epochs) * _seconds(trial) / max(1, len(trial.epochs)) for trial in pruned),
        epochs_run=sum(len(trial.epochs) for trial in trials),
        seconds_run=sum(map(_seconds, trials)),
    )


def prospects(trials: Sequence[TrialRecord], objective: Objective) -> list[Prospect]:
    """Every pruned trial with a value, the likeliest to have won first; empty while no trial completed with a value.

    Completed trials are those that were not pruned at the same epoch, so their gains say what a trial in good standing
    gained; a trial behind may have gained more or less.
    """
    completed = [trial for trial in trials if trial.status == "completed" and trial.values(objective.metric)]
    if not completed:
        return []
    pruned = [trial for trial in trials if trial.status == "pruned" and trial.values(objective.metric)]
    ends = np.array([_best_until(trial, objective) for trial in completed])
    gains = {epoch: _gains(completed, objective, epoch) for epoch in {trial.epochs[-1].epoch for trial in pruned}}
    found = []
    for trial in pruned:
        epoch, reached = trial.epochs[-1].epoch, _best_until(trial, objective)
        found.append(Prospect(trial.number, epoch, objective.sign * reached, float(ends.max()) - reached, gains[epoch]))
    return sorted(found, key=lambda each: (-each.gained_as_much, each.needed, each.number))


def _gains(completed: Iterable[TrialRecord], objective: Objective, epoch: int) -> Floats:
    """Rising; of trials without a value until that epoch nothing is known."""
    pairs = [(_best_until(trial, objective), _best_until(trial, objective, epoch)) for trial in completed]
    return np.sort(np.array([end - then for end, then in pairs if np.isfinite(then)], dtype=np.float64))


def _best_until(trial: TrialRecord, objective: Objective, epoch: int | None = None) -> float:
    """Best value within the first epochs, larger being better; minus infinity without any."""
    values = trial.values(objective.metric)
    return max((objective.sign * value for e, value in values.items() if epoch is None or e <= epoch), default=-np.inf)


def _left(trial: TrialRecord, epochs: int) -> int:
    return max(0, epochs - len(trial.epochs))


def _seconds(trial: TrialRecord) -> float:
    """Of training and validation."""
    return sum(e.seconds.get(kind, 0.0) for e in trial.epochs for kind in ("train", "validation"))

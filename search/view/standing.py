"""How a study stands, as plain values: the best so far, the pace, what is left, what workers have."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from search.config import StudyConfig
from search.events import Status
from search.history import Epoch, TrialRecord

WINDOW = 600.0  # seconds of study time that a pace is taken from


@dataclass(frozen=True)
class Pace:
    """What was done per second lately."""

    epochs: float
    trials: float


@dataclass(frozen=True)
class FeatureUse:
    """What the store of frozen features did so far.

    Attributes:
        found: How often features were there.
        built: How often they had to be computed and were kept.
        bytes: What the store held when it was last used.
    """

    found: int
    built: int
    bytes: float


def best_so_far(trials: Sequence[TrialRecord], config: StudyConfig) -> tuple[TrialRecord, int, float] | None:
    """The trial with the best value, its best epoch and the value; the first of equals."""
    objective = config.objective
    found: tuple[TrialRecord, int, float] | None = None
    for trial in trials:
        best = trial.best(objective)
        if best and trial.status != "failed" and (found is None or objective.better(best[1], found[2])):
            found = (trial, *best)
    return found


def epochs_at_most(trials: Sequence[TrialRecord], wanted: int, epochs: int) -> int:
    """Epochs that these trials will have had at most, when `wanted` of them have ended."""
    ended = [trial for trial in trials if trial.ended]
    return sum(len(trial.epochs) for trial in ended) + (max(wanted, len(trials)) - len(ended)) * epochs


def pace(trials: Iterable[TrialRecord], used: float) -> Pace | None:
    """What was done per second in the last minutes of study time; None before there is anything to go by."""
    trials = list(trials)
    began = _began(trials)
    if began is None or used <= began:
        return None
    since = max(began, used - WINDOW)
    epochs = sum(epoch.at > since for trial in trials for epoch in trial.epochs)
    ended = sum(trial.ended_at is not None and trial.ended_at > since for trial in trials)
    return Pace(epochs / (used - since), ended / (used - since)) if epochs else None


def seconds_left(trials: Sequence[TrialRecord], wanted: int, used: float) -> float | None:
    """Until `wanted` trials have ended, if they take as long as those before; None while none has ended."""
    began, ended = _began(trials), sum(trial.ended for trial in trials)
    if began is None or not ended:
        return None
    return (used - began) / ended * max(0, wanted - ended)


def last_with(trials: Sequence[TrialRecord], status: Status) -> TrialRecord | None:
    """The trial that got this status last, with a reason for it."""
    found = [trial for trial in trials if trial.status == status and trial.reason]
    return max(found, key=lambda trial: trial.ended_at or 0.0, default=None)


def hosts(running: Iterable[TrialRecord]) -> Counter[str]:
    """How many trials each machine runs. A worker is called `host/process`."""
    return Counter(trial.worker.partition("/")[0] for trial in running if trial.worker)


def memory(running: Iterable[TrialRecord]) -> float:
    """Bytes that the workers of these trials had after their last epochs; 0 where nobody told."""
    return sum(trial.epochs[-1].usage.get("memory_bytes", 0.0) for trial in running if trial.epochs)


def feature_use(trials: Iterable[TrialRecord]) -> FeatureUse | None:
    """What the store of frozen features did for these trials; None where nobody told, or it was not used."""
    told = [epoch for trial in trials for epoch in trial.epochs if epoch.usage.get("features_bytes")]
    if not told:
        return None
    found, built = (int(sum(epoch.usage[name] for epoch in told)) for name in ("features_found", "features_built"))
    latest: Epoch = max(told, key=lambda epoch: epoch.at)
    return FeatureUse(found, built, latest.usage["features_bytes"])


def _began(trials: Iterable[TrialRecord]) -> float | None:
    return min((trial.started_at for trial in trials if trial.started_at is not None), default=None)

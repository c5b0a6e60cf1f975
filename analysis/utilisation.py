"""Who worked when: trials on their workers, by the study's used time, and what the time went into."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from search.events import Status, TrialKey
from search.history import TrialRecord

KINDS = ("train", "validation", "setup", "checkpoint")


@dataclass(frozen=True)
class Span:
    """A training run from its first start to its end, or to where it was left to wait at a rung, and from where it was
    taken up again; in seconds of used time, lanes count from 0.
    """

    key: TrialKey
    lane: int
    worker: str
    status: Status
    start: float
    end: float


@dataclass(frozen=True)
class Utilisation:
    """Training runs side by side.

    Attributes:
        spans: By start. Two of one lane never overlap.
        lanes: Runs at once, at most.
        busy_seconds: Sum of all spans.
        wall_seconds: From the first start to the last end.
    """

    spans: list[Span]
    lanes: int
    busy_seconds: float
    wall_seconds: float

    @property
    def share(self) -> float:
        """Of the time that all lanes had together, in [0, 1]; NaN without any."""
        offered = self.lanes * self.wall_seconds
        return self.busy_seconds / offered if offered else math.nan


def utilisation(trials: Iterable[TrialRecord], now: float) -> Utilisation:
    """Reruns count like trials; one that has not ended lasts until `now`, in seconds of used time.

    A run that was lost with its worker and taken up again is one span, with the wait in it, on its last worker.
    """
    free: list[float] = []  # of each lane, when its last run ended
    spans = []
    stints = [(start, trial.key, end, trial) for trial in trials for start, end in trial.stints(now)]
    for start, _, end, trial in sorted(stints, key=lambda stint: stint[:2]):
        lane = next((lane for lane, until in enumerate(free) if until <= start), len(free))
        free[lane : lane + 1] = [end]
        spans.append(Span(trial.key, lane, trial.worker, trial.status, start, end))
    busy = math.fsum(span.end - span.start for span in spans)
    wall = max(free) - spans[0].start if spans else 0.0
    return Utilisation(spans, len(free), busy, wall)


def time_by_kind(trials: Iterable[TrialRecord]) -> dict[str, float]:
    """Seconds by what workers measured, and the rest of the time that ended runs held a worker as `other`.

    `other` has the work that was lost with a worker, and the wait for the next.
    """
    ended = [trial for trial in trials if trial.started_at is not None and trial.ended_at is not None]
    held = math.fsum(end - start for trial in ended for start, end in trial.stints(math.inf))
    known = {kind: math.fsum(e.seconds.get(kind, 0.0) for trial in ended for e in trial.epochs) for kind in KINDS}
    return {**known, "other": max(0.0, held - math.fsum(known.values()))}

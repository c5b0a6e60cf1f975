"""The study so far: trials and notes as they follow from the events, folded in their order."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field, fields, replace
from typing import Any

from search.config import Objective
from search.events import (
    Asked,
    EpochReported,
    Event,
    Failed,
    Noted,
    Origin,
    Promoted,
    Pruned,
    SessionOpened,
    Started,
    Status,
    TrialKey,
    Verdict,
)
from search.space import Point

FINAL = ("winner", "test_opened")  # topics of what comes after a search
_FOLLOWS: dict[Verdict, Status] = {
    "continue": "running",
    "pause": "waiting",
    "complete": "completed",
    "prune": "pruned",
    "fail": "failed",
}


@dataclass(frozen=True)
class Epoch:
    """One epoch of one trial. `epoch` counts from 1; metrics may be NaN; `at` is the study's used time in seconds."""

    epoch: int
    metrics: dict[str, float]
    seconds: dict[str, float]
    at: float
    usage: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class TrialRecord:
    """A trial as the ledger knows it. Times in seconds of used study time, None while they have not come.

    Attributes:
        attempts: Times a worker took it, those left out that follow a promotion.
        promoted: Whether it was paused and its next start continues it.
        left_at: When its worker left it to wait; None while none has, or since one took it up again.
        waits: When it waited at rungs, from and to, before it was taken up again.
    """

    number: int
    repeat: int
    parameters: Point
    seed: int
    origin: Origin
    status: Status
    asked_at: float
    epochs: tuple[Epoch, ...] = ()
    attempts: int = 0
    worker: str = ""
    reason: str | None = None
    started_at: float | None = None
    ended_at: float | None = None
    infeasible: bool = False
    promoted: bool = False
    left_at: float | None = None
    waits: tuple[tuple[float, float], ...] = ()
    system_attributes: dict[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> TrialKey:
        return TrialKey(self.number, self.repeat)

    @property
    def ended(self) -> bool:
        return self.status in ("completed", "pruned", "failed")

    @property
    def usable(self) -> bool:
        """Whether it ended and what it reached counts: a failed trial's values do not."""
        return self.status in ("completed", "pruned")

    @property
    def paused(self) -> bool:
        """Whether it waits at a rung until it is promoted or pruned."""
        return self.left_at is not None and not (self.promoted or self.ended)

    def stints(self, now: float) -> list[tuple[float, float]]:
        """When it held a worker, from and to, in order; the last lasts until `now` if nothing ended it."""
        if self.started_at is None:
            return []
        end = now if self.ended_at is None else self.ended_at
        starts = [self.started_at, *(until for _, until in self.waits)]
        ends = [*(since for since, _ in self.waits), end if self.left_at is None else self.left_at]
        return [(start, max(start, until)) for start, until in zip(starts, ends, strict=True)]

    def values(self, metric: str) -> dict[int, float]:
        """The metric by epoch; epochs without it or with NaN are left out."""
        return {e.epoch: e.metrics[metric] for e in self.epochs if not math.isnan(e.metrics.get(metric, math.nan))}

    def best(self, objective: Objective) -> tuple[int, float] | None:
        """Epoch and value of the best epoch, the earliest of equals; None without any value."""
        values = self.values(objective.metric)
        if not values:
            return None
        epoch = max(values, key=lambda e: (objective.sign * values[e], -e))
        return epoch, values[epoch]

    def metrics_at(self, epoch: int) -> dict[str, float]:
        """What was reported after this epoch; empty when nothing was."""
        return next((each.metrics for each in self.epochs if each.epoch == epoch), {})


class History:
    """The study so far: what follows from the events applied, in their order.

    Attributes:
        trials: By key, in the order asked.
        searched: How many of them are the search's own; counted, because each suggestion asks for it.
        notes: Topic and facts, in the order noted.
        used_seconds: Time in which a driver ran.
        used_before_session: The same, without the present session.
        aside_seconds: Of all that, what reruns and the final stage took from their first event on; it is not the
            search's time.
    """

    def __init__(self, events: Iterable[tuple[float, Event]] = ()):
        self.trials: dict[TrialKey, TrialRecord] = {}
        self.searched = 0
        self.notes: list[Noted] = []
        self._ended, self._ended_when_noted = 0, dict[str, int]()  # trials of the search; at the newest note of a topic
        self.used_seconds = 0.0
        self.used_before_session = 0.0
        self.aside_seconds, self._aside = 0.0, False
        for elapsed, event in events:
            self.apply(elapsed, event)

    def apply(self, elapsed: float, event: Event) -> None:
        """Take one more event; `elapsed` is in seconds since its session began."""
        if isinstance(event, SessionOpened):
            self.used_before_session = self.used_seconds
        before, now = self.used_seconds, max(self.used_seconds, self.used_before_session + elapsed)
        self.used_seconds = now
        aside_before, self._aside = self._aside, _is_aside(event)
        if aside_before and self._aside:
            self.aside_seconds += now - before
        if isinstance(event, Noted):
            self.notes.append(event)
            self._ended_when_noted[event.topic] = self._ended
        elif not isinstance(event, SessionOpened):
            self._apply_to_trial(now, event)

    def _apply_to_trial(self, now: float, event: Any) -> None:
        key = TrialKey(event.number, event.repeat)
        before = self.trials.get(key)
        match event:
            case Asked():
                self.searched += key.repeat == 0 and key not in self.trials
                self.trials[key] = TrialRecord(
                    **{f.name: getattr(event, f.name) for f in fields(event)}, status="waiting", asked_at=now
                )
            case Started():
                trial = self.trials[key]
                self.trials[key] = replace(
                    trial,
                    status="running",
                    attempts=trial.attempts + (not trial.promoted),
                    promoted=False,
                    left_at=None,
                    waits=trial.waits if trial.left_at is None else (*trial.waits, (trial.left_at, now)),
                    worker=event.worker,
                    started_at=now if trial.started_at is None else trial.started_at,
                )
            case EpochReported():
                trial = self.trials[key]
                status = _FOLLOWS[event.verdict]
                self.trials[key] = replace(
                    trial,
                    status=status,
                    epochs=(*trial.epochs, Epoch(event.epoch, event.metrics, event.seconds, now, event.usage)),
                    reason=event.reason,
                    ended_at=None if status in ("running", "waiting") else now,
                    left_at=now if event.verdict == "pause" else None,
                    system_attributes={**trial.system_attributes, **event.system_attributes},
                )
            case Promoted():
                self.trials[key] = replace(self.trials[key], promoted=True)
            case Pruned():
                self.trials[key] = replace(self.trials[key], status="pruned", reason=event.reason, ended_at=now)
            case Failed():
                trial = self.trials[key]
                self.trials[key] = replace(
                    trial,
                    status="failed",
                    reason=event.reason,
                    ended_at=now,
                    infeasible=event.infeasible,
                    system_attributes={**trial.system_attributes, **event.system_attributes},
                )
        if not key.repeat:
            self._ended += self.trials[key].ended - (before is not None and before.ended)

    def search_trials(self) -> list[TrialRecord]:
        """The search's own trials, by number; reruns left out."""
        return [trial for key, trial in self.trials.items() if key.repeat == 0]

    def reruns(self, number: int | None = None) -> list[TrialRecord]:
        """Reruns of one trial, or of all."""
        return [t for key, t in self.trials.items() if key.repeat and number in (None, key.number)]

    def note(self, topic: str) -> dict[str, Any] | None:
        """The newest facts noted under a topic."""
        return next((note.facts for note in reversed(self.notes) if note.topic == topic), None)

    def is_overtaken(self, topic: str) -> bool:
        """Whether trials of the search have ended since something was last noted under a topic."""
        return self._ended_when_noted.get(topic, 0) < self._ended


def _is_aside(event: Event) -> bool:
    """Whether an event is of a rerun or of the final stage."""
    if isinstance(event, Noted):
        return event.topic in FINAL or (event.topic == "trial_lost" and "." in str(event.facts.get("trial")))
    return getattr(event, "repeat", 0) > 0

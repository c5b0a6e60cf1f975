"""Training runs to do, and the ledger that remembers them. Every answer is in it before it is given."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from numbers import Real
from typing import Any

from search.config import StudyConfig
from search.events import Asked, EpochReported, Failed, Noted, Promoted, Pruned, Started, TrialKey, Verdict
from search.history import TrialRecord
from search.ledger import Ledger
from search.retries import Death, Losses
from search.space import Point

MAX_REASON = 2000  # characters; an exception can carry megabytes


@dataclass(frozen=True)
class Request:
    """One training run that a worker should do: it has reported `epochs_reported` epochs already."""

    key: TrialKey
    parameters: Point
    seed: int
    epochs: int
    epochs_reported: int = 0


@dataclass(frozen=True)
class Report:
    """What a worker says after an epoch. `last`: the trial ends here by its own decision (early stopping)."""

    epoch: int
    metrics: Mapping[str, float]
    seconds: Mapping[str, float] = field(default_factory=dict)
    last: bool = False
    usage: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Decision:
    """What follows from a report.

    Attributes:
        attributes: What Optuna wants remembered.
        outdone: Trials that wait and now will not go on.
    """

    verdict: Verdict
    reason: str | None = None
    attributes: dict[str, Any] = field(default_factory=dict)
    outdone: tuple[Pruned, ...] = ()


class TrialSource(ABC):
    """Training runs to do and the ledger that remembers them. Shared by the search and by the finalists' reruns.

    Reports are idempotent: a worker that repeats an epoch after a crash gets the recorded answer again.

    Attributes:
        stopped: Why nothing more is asked although something is missing; None while all is well.
    """

    def __init__(self, config: StudyConfig, ledger: Ledger, unfinished: list[TrialRecord], clock: Callable[[], float]):
        self.config = config
        self.ledger = ledger
        self.stopped: str | None = None
        self._clock = clock
        self._unfinished = {trial.key: clock() for trial in unfinished}  # and when each may run again
        self._losses: dict[TrialKey, Losses] = {}
        self._failures_in_a_row = 0

    @property
    @abstractmethod
    def missing(self) -> int:
        """Training runs that are asked for or under way but have not ended."""

    @abstractmethod
    def _next(self) -> Asked | Promoted | None:
        """The next run to record and hand out; None when there is none, at least for now."""

    @abstractmethod
    def _decide(self, trial: TrialRecord, report: Report, value: float) -> Decision:
        """What to do after an epoch with this finite objective value."""

    def _forbid(self, trial: TrialRecord) -> dict[str, Any]:
        """Tell whoever proposes that this configuration cannot run; what is to be remembered with it."""
        return {}

    def _ended(self, trial: TrialRecord) -> None:  # noqa: B027 - most sources need not know
        """Called once, after the end of a trial is durable."""

    @property
    def waiting(self) -> list[TrialKey]:
        """Runs that are paused and may be promoted, in order."""
        return []

    @property
    def resting(self) -> int:
        """Lost runs whose wait is not over. Each keeps its worker's place: what is new would be asked for without its
        result.
        """
        return 0 if self.stopped else sum(due > self._clock() for due in self._unfinished.values())

    def ask(self) -> Request | None:
        """The next training run: first those an earlier session left unfinished, and lost ones whose wait is over.
        None: no more, unless a run is lost or rests.
        """
        if self.stopped:
            return None
        ready = next((key for key, due in self._unfinished.items() if due <= self._clock()), None)
        if ready is not None:
            del self._unfinished[ready]
            return self._request(self.ledger.history.trials[ready])
        following = self._next()
        if following is None:
            return None
        self.ledger.append(following)
        return self._request(self.ledger.history.trials[TrialKey(following.number, following.repeat)])

    def started(self, key: TrialKey, worker: str) -> None:
        """A worker took the trial."""
        if self._at_work(key):
            self.ledger.append(Started(key.number, key.repeat, worker))

    def report(self, key: TrialKey, report: Report) -> Verdict:
        """Record an epoch and say what the worker does next."""
        trial = self.ledger.history.trials[key]
        if trial.ended:
            return "prune" if trial.status == "pruned" else "complete"
        if trial.paused:
            return "pause"
        if trial.epochs and report.epoch <= trial.epochs[-1].epoch:
            return "continue"
        decision = self._judge(trial, report)
        self.ledger.append(
            EpochReported(
                number=key.number,
                repeat=key.repeat,
                epoch=report.epoch,
                metrics={name: _finite(value) for name, value in report.metrics.items()},
                seconds={name: _finite(value) for name, value in report.seconds.items()},
                verdict=decision.verdict,
                reason=decision.reason,
                system_attributes=decision.attributes,
                usage={name: _finite(value) for name, value in report.usage.items()},
            ),
            *decision.outdone,
        )
        if decision.verdict == "pause":
            self._failures_in_a_row = 0
        elif decision.verdict != "continue":
            self._close(key)
        for pruned in decision.outdone:
            self._close(TrialKey(pruned.number, pruned.repeat))
        return decision.verdict

    def fail(self, key: TrialKey, reason: str, infeasible: bool = False) -> None:
        """Record that a trial ended without a usable result; a trial that has ended stays as it is.

        Args:
            key: The trial.
            reason: A sentence; cut after `MAX_REASON` characters.
            infeasible: Its configuration can never run here (memory): the sampler is to keep away from it.
        """
        if self._at_work(key):
            attributes = self._forbid(self.ledger.history.trials[key]) if infeasible else {}
            self.ledger.append(Failed(key.number, reason[:MAX_REASON], key.repeat, infeasible, attributes))
            self._close(key)

    def lost(self, key: TrialKey, death: Death) -> None:
        """Its worker or node is gone: the trial is asked for again, after a wait that grows with its losses.

        What may be the trial's own doing is counted against its retries; what is not (its node died or is drained,
        its worker made room for a fresh one) is not, but is not endless either. See `search.retries`.
        """
        if not self._at_work(key):
            return
        epochs = len(self.ledger.history.trials[key].epochs)
        losses = self._losses[key] = self._losses.get(key, Losses()).and_now(death.cause, epochs)
        given_up = losses.given_up(self.config.budget.retries)
        if given_up:
            self.fail(key, f"{given_up}, the last time: {death.reason}")
            return
        facts = {"trial": str(key), "cause": death.cause, "reason": death.reason[:MAX_REASON]}
        self.ledger.append(Noted("trial_lost", {**facts, "again_after_seconds": losses.wait}))
        self._unfinished[key] = self._clock() + losses.wait

    def _at_work(self, key: TrialKey) -> bool:
        """Whether what is heard of a trial still counts: a worker that was told to leave it may yet speak or die."""
        trial = self.ledger.history.trials[key]
        return not (trial.ended or trial.paused)

    def _judge(self, trial: TrialRecord, report: Report) -> Decision:
        metric = self.config.objective.metric
        came = report.metrics.get(metric)
        value = _finite(came)
        if math.isnan(value):
            reason = f"{metric} must be a finite number, but epoch {report.epoch} gave {came!r}"
            return Decision("fail", reason[:MAX_REASON])
        return self._decide(trial, report, value)

    def _is_last(self, report: Report) -> bool:
        return report.last or report.epoch >= self.config.budget.epochs

    def _close(self, key: TrialKey) -> None:
        trial = self.ledger.history.trials[key]
        self._failures_in_a_row = self._failures_in_a_row + 1 if trial.status == "failed" else 0
        if self._failures_in_a_row >= self.config.budget.consecutive_failures:
            self.stopped = f"{self._failures_in_a_row} trials in a row failed, the last one because {trial.reason}"
        self._ended(trial)

    def _request(self, trial: TrialRecord) -> Request:
        return Request(trial.key, trial.parameters, trial.seed, self.config.budget.epochs, len(trial.epochs))


def _finite(value: Any) -> float:
    """The number that a worker gave; NaN for anything else, so that the ledger reads back what was decided on."""
    is_number = isinstance(value, Real) and not isinstance(value, bool)
    return float(value) if is_number and math.isfinite(value) else math.nan

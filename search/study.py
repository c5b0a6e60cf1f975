"""What a study does next, and what it makes of a result. Every answer is in the ledger before it is given."""

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from numbers import Real
from typing import Any

from search.config import StudyConfig
from search.events import Asked, EpochReported, Failed, Noted, Promoted, Pruned, Started, TrialKey, Verdict
from search.history import TrialRecord
from search.ledger import Ledger
from search.pruning import Ladder
from search.retries import Death, Losses
from search.sampling import Optimizer, derive_seed
from search.space import Point

MAX_REASON = 2000  # characters; an exception can carry megabytes
OUT_OF_TIME = "the study's time was used up"


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
        if decision.verdict not in ("continue", "pause"):
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


class Study(TrialSource):
    """The search itself: Optuna proposes and prunes, the ledger remembers."""

    def __init__(self, config: StudyConfig, ledger: Ledger, clock: Callable[[], float] = time.monotonic):
        trials = ledger.history.search_trials()
        super().__init__(config, ledger, [trial for trial in trials if not (trial.ended or trial.paused)], clock)
        self._optimizer = Optimizer(config, trials)
        self._ladder = Ladder.of(config, trials)

    @property
    def missing(self) -> int:
        trials = self.ledger.history.search_trials()
        wanted = len(trials) if self._out_of_time() else max(len(trials), self.config.budget.trials)
        return wanted - sum(trial.ended for trial in trials)

    @property
    def waiting(self) -> list[TrialKey]:
        """See `TrialSource.waiting`."""
        return [TrialKey(number) for number in self._ladder.waiting()]

    def ask(self) -> Request | None:
        """See `TrialSource.ask`. Trials that are paused are pruned as soon as it is certain that none can go on."""
        request = super().ask()
        if request is None and not self.stopped:
            if self._out_of_time():
                self._prune_paused(OUT_OF_TIME)
            elif not self._optimizer.running:
                self._prune_paused("not among the best when all had been tried")
        return request

    def _prune_paused(self, reason: str) -> None:
        pruned = [Pruned(number, reason) for number in self._ladder.clear()]
        if pruned:
            self.ledger.append(*pruned)
        for each in pruned:
            self._close(TrialKey(each.number))

    def _next(self) -> Asked | Promoted | None:
        if self._out_of_time():
            return None
        number = self._ladder.promote(self._more)
        if number is not None:
            self._optimizer.go_on(number)
            return Promoted(number)
        return self._new() if self._more else None

    @property
    def _more(self) -> bool:
        """Whether new configurations are still to come."""
        return self.ledger.history.searched < self.config.budget.trials

    def _new(self) -> Asked:
        number = self.ledger.history.searched
        points = self.config.first_points
        fixed = points[number] if number < len(points) else None
        parameters, attributes = self._optimizer.propose(number, fixed)
        return Asked(
            number=number,
            parameters=parameters,
            seed=derive_seed(self.config.seed, "trial", number),
            origin="sampler" if fixed is None else "first_point",
            system_attributes=attributes,
        )

    def _decide(self, trial: TrialRecord, report: Report, value: float) -> Decision:
        behind, attributes = self._optimizer.observe(trial.number, report.epoch, value)
        standing = self._ladder.enter(trial.number, report.epoch, value, self._more)
        verdict, reason = self._verdict(report, "prune" if behind else standing)
        if verdict == "pause":
            self._ladder.wait(trial.number, report.epoch, value)
            self._optimizer.pause(trial.number)
        outdone = [Pruned(number, _behind(report.epoch)) for number in self._ladder.outdone(report.epoch)]
        return Decision(verdict, reason, attributes, tuple(outdone))

    def _verdict(self, report: Report, standing: Verdict) -> tuple[Verdict, str | None]:
        """What follows, and why, for a trial that stands so among the others."""
        if self._is_last(report):
            return "complete", None
        if self._out_of_time():
            return "prune", OUT_OF_TIME
        return standing, _behind(report.epoch) if standing == "prune" else None

    def _forbid(self, trial: TrialRecord) -> dict[str, Any]:
        return self._optimizer.forbid(trial.number)

    def _ended(self, trial: TrialRecord) -> None:
        objective = self.config.objective
        best = trial.best(objective.metric, objective.direction)
        self._optimizer.finish(trial.number, trial.status, best[1] if best else None, trial.infeasible)

    def _out_of_time(self) -> bool:
        """Whether the search's time is used up. Reruns have no such limit: a winner without them was not promised."""
        limit = self.config.budget.wall_seconds
        return limit is not None and self.ledger.elapsed >= limit


class Then:
    """One source after another: what follows is made, and asked, when all runs of the first have ended.

    Workers stay warm from one to the other.
    """

    def __init__(self, first: TrialSource, following: Callable[[], TrialSource]):
        self._current = first
        self._following: Callable[[], TrialSource] | None = following

    def ask(self) -> Request | None:
        """See `TrialSource.ask`."""
        request = self._current.ask()
        if request or self._following is None or self._current.missing or self._current.stopped:
            return request
        self._current, self._following = self._following(), None
        return self._current.ask()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._current, name)


class Finalists(TrialSource):
    """The best configurations once more, on fresh seeds and to the end, so that the winner is not the luckiest."""

    def __init__(
        self, config: StudyConfig, ledger: Ledger, numbers: list[int], clock: Callable[[], float] = time.monotonic
    ):
        super().__init__(config, ledger, [trial for trial in ledger.history.reruns() if not trial.ended], clock)
        repeats = range(1, config.final.repeats + 1)
        self.keys = [TrialKey(number, repeat) for repeat in repeats for number in numbers]

    @property
    def missing(self) -> int:
        trials = self.ledger.history.trials
        return sum(key not in trials or not trials[key].ended for key in self.keys)

    def _next(self) -> Asked | None:
        trials = self.ledger.history.trials
        key = next((key for key in self.keys if key not in trials), None)
        if key is None:
            return None
        return Asked(
            number=key.number,
            repeat=key.repeat,
            parameters=trials[TrialKey(key.number)].parameters,
            seed=derive_seed(self.config.seed, "rerun", *key),
            origin="rerun",
        )

    def _decide(self, trial: TrialRecord, report: Report, value: float) -> Decision:
        return Decision("complete" if self._is_last(report) else "continue")


def _behind(epoch: int) -> str:
    return f"behind others at epoch {epoch}"


def _finite(value: Any) -> float:
    """The number that a worker gave; NaN for anything else, so that the ledger reads back what was decided on."""
    is_number = isinstance(value, Real) and not isinstance(value, bool)
    return float(value) if is_number and math.isfinite(value) else math.nan

"""What a study does next, and what it makes of a result: the search itself, then the finalists' reruns."""

import time
from collections.abc import Callable
from typing import Any

from search.config import StudyConfig
from search.events import Asked, Promoted, Pruned, TrialKey, Verdict
from search.history import TrialRecord
from search.ledger import Ledger
from search.pruning import Ladder
from search.sampling import Optimizer, derive_seed
from search.trial_source import Decision, Report, Request, TrialSource

OUT_OF_TIME = "the study's time was used up"


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
        best = trial.best(objective)
        self._optimizer.finish(trial.number, trial.status, best[1] if best else None, trial.infeasible)

    def _out_of_time(self) -> bool:
        """Whether the search's time is used up. Reruns have no such limit: a winner without them was not promised."""
        limit = self.config.budget.wall_seconds
        return limit is not None and self.ledger.elapsed - self.ledger.history.aside_seconds >= limit


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

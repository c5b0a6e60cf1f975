"""Who is pruned: Optuna's pruners, and successive halving in a form that does not slow down with the trials; who waits
and is promoted, in its other variant.
"""

from bisect import bisect_right, insort
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from optuna import Study
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, NopPruner
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial

from search.config import Pruner, StudyConfig
from search.history import TrialRecord

Entry = tuple[float, int]  # how bad a trial's value at a rung is, and its number


def build_pruner(settings: Pruner, epochs: int) -> BasePruner:
    """The pruner; `epochs` is the most a trial may get."""
    match settings.name:
        case "successive_halving" if settings.variant != "stopping":
            return NopPruner()  # a `Ladder` decides
        case "successive_halving":
            return SuccessiveHalving(settings.min_epochs, settings.reduction_factor)
        case "hyperband":
            return HyperbandPruner(
                min_resource=settings.min_epochs, max_resource=epochs, reduction_factor=settings.reduction_factor
            )
        case "median":
            return MedianPruner(n_startup_trials=settings.startup_trials, n_warmup_steps=settings.min_epochs)
        case "none":
            return NopPruner()


class SuccessiveHalving(BasePruner):
    """Asynchronous successive halving (Li et al. 2020) with the verdicts, and the attributes, of Optuna's pruner.

    Optuna's looks at every trial on every report: 7 ms with 10,000 trials, and a thousand workers report hundreds of
    times a second. This one keeps the values of each rung in order.
    """

    def __init__(self, min_epochs: int, reduction_factor: int):
        self._min_epochs = min_epochs
        self._factor = reduction_factor
        self._rungs: list[list[float]] | None = None

    def prune(self, study: Study, trial: FrozenTrial) -> bool:
        """Whether the trial's newest value is behind at a rung that its newest epoch has reached."""
        epoch = trial.last_step
        if epoch is None:
            return False
        if self._rungs is None:
            self._rungs = _recorded(study)
        rung = _rungs_passed(trial)
        while epoch >= self._min_epochs * self._factor**rung:
            value = trial.intermediate_values[epoch]
            study._storage.set_trial_system_attr(trial._trial_id, _key(rung), value)
            if len(self._rungs) == rung:
                self._rungs.append([])
            insort(self._rungs[rung], value)
            if not self._goes_on(value, self._rungs[rung], study.direction):
                return True
            rung += 1
        return False

    def _goes_on(self, value: float, rung: list[float], direction: StudyDirection) -> bool:
        """Whether a value is among the best one in `reduction_factor`; while there are fewer values, whether it is the
        best.
        """
        places = max(1, len(rung) // self._factor)
        return value >= rung[-places] if direction == StudyDirection.MAXIMIZE else value <= rung[places - 1]


def _recorded(study: Study) -> list[list[float]]:
    """Values at each rung, in order, as the trials of a resumed study have them."""
    rungs: list[list[float]] = []
    for trial in study.get_trials(deepcopy=False):
        for rung in range(_rungs_passed(trial)):
            if len(rungs) == rung:
                rungs.append([])
            rungs[rung].append(trial.system_attrs[_key(rung)])
    return [sorted(values) for values in rungs]


def _rungs_passed(trial: FrozenTrial) -> int:
    rung = 0
    while _key(rung) in trial.system_attrs:
        rung += 1
    return rung


def _key(rung: int) -> str:
    return f"completed_rung_{rung}"  # Optuna's name, so that its own pruner could take over


def pauses(settings: Pruner, epochs: int) -> list[int]:
    """Epochs after which a trial may have to wait: the rungs below the most that it may get."""
    found: list[int] = []
    epoch = settings.min_epochs
    while settings.variant != "stopping" and epoch < epochs:
        found.append(epoch)
        epoch *= settings.reduction_factor
    return found


@dataclass(eq=False)
class Rung:
    """The trials that have reached one epoch.

    Attributes:
        expected: How many there will be, if none goes on that others outdo later.
        factor: One in so many goes on.
        rounded_up: Whether a part of a place counts as one in the end.
        entries: All of them, the best first.
        waiting: Those that are paused here, the best first.
    """

    expected: int
    factor: int
    rounded_up: bool
    entries: list[Entry] = field(default_factory=list)
    waiting: list[Entry] = field(default_factory=list)

    def places(self, more: bool) -> int:
        """How many go on now: the share of those that are here; what it is in the end, only if no new trial comes."""
        return len(self.entries) // self.factor if more else self._share(len(self.entries))

    @property
    def most_places(self) -> int:
        """How many go on in the end."""
        return self._share(max(self.expected, len(self.entries)))

    @property
    def certain_places(self) -> int:
        """How many of those that are here go on whatever the others bring."""
        return max(0, self.most_places - max(0, self.expected - len(self.entries)))

    def _share(self, trials: int) -> int:
        return -(-trials // self.factor) if self.rounded_up else max(1, trials // self.factor)

    def among(self, badness: float, places: int) -> bool:
        """Whether a value is among so many best, ties included."""
        return places >= len(self.entries) or (places > 0 and badness <= self.entries[places - 1][0])


class Ladder:
    """Successive halving as Li et al. (2020) describe it, asynchronous or not: who is behind at a rung waits for
    promotion.

    What it says depends on the values that trials had at the rungs, on who waits, and on the number of trials.

    Attributes:
        pauses: The epochs of its rungs, the lowest first; without any, everybody goes on.
    """

    def __init__(self, pauses: Sequence[int], factor: int, trials: int, direction: str, synchronous: bool = False):
        """`trials`: that the study will have. `synchronous`: while more are to come to a rung, only those go on whom
        nobody can outdo, and in the end one in `factor`, rounded down, as Li et al. have it.
        """
        self.pauses = pauses
        self._synchronous = synchronous
        self._sign = -1 if direction == "maximize" else 1
        self._rungs: list[Rung] = []
        for _ in pauses:
            self._rungs.append(Rung(trials, factor, rounded_up=not synchronous))
            trials = self._rungs[-1].most_places

    @classmethod
    def of(cls, config: StudyConfig, trials: Iterable[TrialRecord]) -> "Ladder":
        """The ladder as these trials of a study left it."""
        trials, pruner, objective = list(trials), config.pruner, config.objective
        epochs, most = pauses(pruner, config.budget.epochs), max(len(trials), config.budget.trials)
        synchronous = pruner.variant == "synchronous"
        ladder = cls(epochs, pruner.reduction_factor, most, objective.direction, synchronous)
        for trial in trials if epochs else ():
            values = trial.values(objective.metric)
            for epoch in values:
                ladder._enter(trial.number, epoch, values[epoch])
            if trial.paused:
                ladder.wait(trial.number, trial.epochs[-1].epoch, values[trial.epochs[-1].epoch])
        return ladder

    def enter(self, number: int, epoch: int, value: float, more: bool) -> Literal["continue", "pause", "prune"]:
        """Take in a trial's value after an epoch, and say what follows; `more`: whether new trials will be asked for.

        It goes on at once if it is among the best, and is pruned if as many others as can ever go on are better.
        """
        rung, badness = self._enter(number, epoch, value), self._sign * value
        if rung is None or rung.among(badness, self._places(rung, more)):
            return "continue"
        return "pause" if rung.among(badness, rung.most_places) else "prune"

    def wait(self, number: int, epoch: int, value: float) -> None:
        """A trial that has entered the rung of this epoch is paused there."""
        insort(self._rungs[self.pauses.index(epoch)].waiting, (self._sign * value, number))

    def promote(self, more: bool) -> int | None:
        """The best trial that waits at the highest rung at which one may go on; it waits no more. None: none may."""
        for rung in reversed(self._rungs):
            if self._gives(rung, more):
                return rung.waiting.pop(0)[1]
        return None

    def outdone(self, epoch: int) -> list[int]:
        """Trials that wait at the rung of this epoch and can never be promoted, by number; they wait no more."""
        rung = self._rung(epoch)
        if rung is None or rung.most_places >= len(rung.entries):
            return []
        first = bisect_right(rung.waiting, rung.entries[rung.most_places - 1][0], key=lambda entry: entry[0])
        gone, rung.waiting = rung.waiting[first:], rung.waiting[:first]
        return sorted(number for _, number in gone)

    def waiting(self) -> list[int]:
        """Every trial that waits, by number."""
        return sorted(number for rung in self._rungs for _, number in rung.waiting)

    def clear(self) -> list[int]:
        """Every trial that waits, by number; none does any more."""
        gone = self.waiting()
        for rung in self._rungs:
            rung.waiting = []
        return gone

    def _gives(self, rung: Rung, more: bool) -> bool:
        """Whether one that waits at a rung goes on now."""
        return bool(rung.waiting) and rung.among(rung.waiting[0][0], self._places(rung, more))

    def _places(self, rung: Rung, more: bool) -> int:
        """How many of those at a rung go on now."""
        return rung.certain_places if self._synchronous and self._fills(rung, more) else rung.places(more)

    def _fills(self, rung: Rung, more: bool) -> bool:
        """Whether others are to come to a rung than those on their way, for which no worker should wait."""
        below = self._rungs[: self._rungs.index(rung)]
        return more or any(self._gives(each, more) for each in below)

    def _enter(self, number: int, epoch: int, value: float) -> Rung | None:
        rung = self._rung(epoch)
        if rung is not None:
            insort(rung.entries, (self._sign * value, number))
        return rung

    def _rung(self, epoch: int) -> Rung | None:
        return self._rungs[self.pauses.index(epoch)] if epoch in self.pauses else None

"""Which trial wins when values are noisy, and whether it sits at an edge of the space."""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from search.config import Objective, StudyConfig
from search.errors import ConfigurationError
from search.history import History, TrialRecord
from search.space import Choice, FloatRange, IntRange, Point, Space

LIMITS = {"augmentation_strength": (0.0, 1.0)}
"""Where widening ends because the hyperparameter does. Zero ends every range from below."""
NEAR = 0.05
"""So close to an end, as a share of the range, counts as at the end."""


@dataclass(frozen=True)
class Winner:
    """The trial to train for good, and why.

    Attributes:
        value: Its best epoch's objective value in the search.
        best_epoch: Epochs to train, at least 1: the median over its reruns (the higher of two middle ones); without
            reruns, the search's best epoch.
        learning_rates: Of each epoch up to `best_epoch`, as the run that `best_epoch` comes from reported them.
        mean: Of the objective value over its reruns; NaN without reruns.
        standard_error: Of that mean; NaN with fewer than two reruns.
        seeds: Reruns that the mean is over.
        reason: A sentence.
    """

    number: int
    parameters: Point
    value: float
    best_epoch: int
    learning_rates: list[float]
    mean: float
    standard_error: float
    seeds: int
    reason: str


@dataclass(frozen=True)
class Finalist:
    """A trial and its completed reruns, in the order of the epochs at which they were best, with their values.

    Attributes:
        failed: Reruns that failed.
    """

    trial: TrialRecord
    reruns: list[TrialRecord]
    values: list[float]
    failed: int

    @property
    def mean(self) -> float:
        return statistics.fmean(self.values) if self.values else math.nan

    @property
    def standard_error(self) -> float:
        seeds = len(self.values)
        return statistics.stdev(self.values) / math.sqrt(seeds) if seeds > 1 else math.nan

    @property
    def typical(self) -> TrialRecord:
        """The rerun whose best epoch is the median, the higher of two middle ones; without reruns, the trial."""
        return self.reruns[len(self.reruns) // 2] if self.reruns else self.trial

    def __str__(self) -> str:
        spread = "" if math.isnan(self.standard_error) else f" ± {self.standard_error:.2g} (standard error)"
        failed = f", {self.failed} more failed" if self.failed else ""
        seeds = "1 fresh seed" if len(self.values) == 1 else f"{len(self.values)} fresh seeds"
        return f"trial {self.trial.number} with {self.mean:.4g}{spread} over {seeds}{failed}"


def rank(trials: Iterable[TrialRecord], objective: Objective) -> list[TrialRecord]:
    """Best first, whatever their status; trials without a value are left out.

    Of equal values the cheaper one comes first: fewer weights that train, then deeper freeze, then lower number.
    """
    valued = [(trial, best[1]) for trial in trials if (best := trial.best(objective))]
    return [trial for trial, value in sorted(valued, key=lambda pair: (_loss(pair[1], objective), *_cost(pair[0])))]


def finalists(trials: Iterable[TrialRecord], objective: Objective, count: int) -> list[TrialRecord]:
    """The best `count` completed trials; if fewer completed, the best pruned ones fill up.

    A pruned trial's value comes from fewer epochs, so it waits behind every completed one; its rerun goes to the end
    and settles what it is worth. Failed and running trials are no candidates.
    """
    ranked = rank(trials, objective)
    return [trial for status in ("completed", "pruned") for trial in ranked if trial.status == status][:count]


def choose_winner(history: History, config: StudyConfig) -> Winner:
    """The finalist with the best mean over its completed reruns; without any such rerun, the best trial of the search.

    The search's own value decides nothing once there are reruns: it is the luckiest of many. A trial that failed on a
    fresh seed stands behind those that failed on fewer. Ties as in `rank`.

    Raises:
        ConfigurationError: when no trial completed or was pruned with a value.
    """
    objective = config.objective
    ranked = finalists(history.search_trials(), objective, len(history.trials))
    if not ranked:
        raise ConfigurationError(
            f"a winner needs a completed or pruned trial with a value of {objective.metric}, but there is none"
        )
    tested = rank_finalists(history, objective)
    if tested:
        return _winner(tested[0], objective, _best_of_finalists(tested, ranked[0], objective))
    if all(rerun.ended for rerun in history.reruns()):
        untested = sorted((_finalist(history, trial, objective) for trial in ranked), key=lambda each: each.failed)
    else:
        untested = [Finalist(trial, [], [], failed=0) for trial in ranked]
    return _winner(untested[0], objective, _best_of_search(untested, objective))


def rank_finalists(history: History, objective: Objective) -> list[Finalist]:
    """Those with a completed rerun, the winner first: fewest failed reruns, then best mean, then as in `rank`."""
    ranked = finalists(history.search_trials(), objective, len(history.trials))
    tested = [each for trial in ranked if (each := _finalist(history, trial, objective)).values]
    return sorted(tested, key=lambda each: (each.failed, _loss(each.mean, objective), *_cost(each.trial)))


def lead(finalists: Sequence[Finalist], objective: Objective) -> tuple[float, float] | None:
    """By how much the first finalist's mean beats the second's, and the standard error of that difference.

    None with fewer than two finalists; the error is NaN where one of them has fewer than two reruns.
    """
    if len(finalists) < 2:
        return None
    first, second = finalists[:2]
    difference = _loss(second.mean, objective) - _loss(first.mean, objective)
    return difference, math.hypot(first.standard_error, second.standard_error)


def place(parameter: FloatRange | IntRange, value: float) -> float:
    """Where a value lies in its range: 0 at the low end, 1 at the high end; in the logarithm on a log scale."""
    low, high = parameter.low, parameter.high
    if parameter.log:
        low, high, value = math.log(low), math.log(high), math.log(value)
    return (value - low) / (high - low)


def learning_rates(trial: TrialRecord, epochs: int) -> list[float]:
    """The learning rate of each of the first epochs; empty when it was not reported with every one."""
    rates = [epoch.metrics.get("learning_rate", math.nan) for epoch in trial.epochs if epoch.epoch <= epochs]
    return [] if any(map(math.isnan, rates)) else rates


def edges(space: Space, point: Mapping[str, object], limits: Mapping[str, tuple[float, float]] = LIMITS) -> list[str]:
    """Where `point` lies at an end of a range that could be wider, one sentence each, in the order of the space.

    Choices and fixed values have no ends. On a log scale nearness is measured in the logarithm.

    Args:
        space: The ranges searched.
        point: A configuration; hyperparameters it lacks are left out.
        limits: Lowest and highest possible value by name, for example `{"freeze_depth": (0, 5)}`.
    """
    sentences = []
    for name, parameter in space.items():
        value = point.get(name)
        if isinstance(parameter, Choice) or not isinstance(value, int | float) or parameter.low == parameter.high:
            continue
        lowest, highest = limits.get(name, (0.0, math.inf))
        share = place(parameter, value)
        if share <= NEAR and parameter.low > lowest:
            sentences.append(_edge(name, value, "low", parameter))
        elif share >= 1 - NEAR and parameter.high < highest:
            sentences.append(_edge(name, value, "high", parameter))
    return sentences


def _loss(value: float, objective: Objective) -> float:
    return -value if objective.direction == "maximize" else value


def _cost(trial: TrialRecord) -> tuple[float, float, int]:
    """Sorts the cheaper trial first."""
    share = trial.epochs[-1].metrics.get("trainable_share", math.nan)
    return 1.0 if math.isnan(share) else share, -float(trial.parameters.get("freeze_depth", 0)), trial.number


def _finalist(history: History, trial: TrialRecord, objective: Objective) -> Finalist:
    reruns = history.reruns(trial.number)
    completed = [rerun for rerun in reruns if rerun.status == "completed" and rerun.values(objective.metric)]
    completed.sort(key=lambda rerun: _searched(rerun, objective)[0])
    values = [_searched(rerun, objective)[1] for rerun in completed]
    return Finalist(trial, completed, values, failed=sum(rerun.status == "failed" for rerun in reruns))


def _winner(finalist: Finalist, objective: Objective, reason: str) -> Winner:
    best_epoch = _searched(finalist.typical, objective)[0]
    return Winner(
        number=finalist.trial.number,
        parameters=finalist.trial.parameters,
        value=_searched(finalist.trial, objective)[1],
        best_epoch=max(1, best_epoch),
        learning_rates=learning_rates(finalist.typical, best_epoch),
        mean=finalist.mean,
        standard_error=finalist.standard_error,
        seeds=len(finalist.values),
        reason=reason,
    )


def _best_of_search(untested: list[Finalist], objective: Objective) -> str:
    first, trial = untested[0], untested[0].trial
    epoch, value = _searched(trial, objective)
    others = [_searched(other.trial, objective)[1] for other in untested[1:2] if other.failed == first.failed]
    tie = f" (as good as trial {untested[1].trial.number}, but cheaper or earlier)" if others == [value] else ""
    failed = sorted(each.trial.number for each in untested if each.failed)
    if first.failed:
        rerun = f"none of its reruns on fresh seeds completed ({first.failed} failed), as with every other candidate"
    elif failed:
        rerun = f"it was not rerun on fresh seeds, and the reruns of trials {', '.join(map(str, failed))} all failed"
    else:
        rerun = "it was not rerun on fresh seeds, so part of that may be luck"
    among = f"{trial.status} trials" + (" without failed reruns" if failed and not first.failed else "")
    best = f"trial {trial.number} has the best {objective.metric} of the {among}, {value:.4g} at epoch {epoch}{tie}"
    return f"{best}; {rerun}"


def _best_of_finalists(tested: list[Finalist], leader: TrialRecord, objective: Objective) -> str:
    reason = f"best mean {objective.metric}: {tested[0]}"
    if len(tested) > 1:
        reason += f"; next: {tested[1]}"
    if leader.number != tested[0].trial.number:
        reason += f"; the search's leader was trial {leader.number} with {_searched(leader, objective)[1]:.4g}"
    return reason


def _searched(trial: TrialRecord, objective: Objective) -> tuple[int, float]:
    """Epoch and value of the best epoch; (0, NaN) without any."""
    return trial.best(objective) or (0, math.nan)


def _edge(name: str, value: float, end: str, parameter: FloatRange | IntRange) -> str:
    side = "below" if end == "low" else "above"
    return (
        f"{name}: the best value, {value:g}, lies at the {end} end of its range ({parameter.low:g} to "
        f"{parameter.high:g}); widen the range, because something better may lie {side}"
    )

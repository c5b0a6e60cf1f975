"""TPE whose suggestions do not slow down with the trials."""

import heapq
from typing import Any

from optuna import Study
from optuna.distributions import BaseDistribution
from optuna.samplers import TPESampler
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from search.optuna_terms import distribution
from search.space import Space

MODELLED = 1000  # ended trials that a model is made of; Optuna's suggestions up to there, to the last bit
GOOD = 25  # trials that Optuna's model of good configurations is made of at the most


class JointTPE(TPESampler):
    """Multivariate TPE over hyperparameters that every trial has.

    Two things in Optuna's grow with the number of trials. It infers the space from all of them before each suggestion:
    here the space is known. And it models all of them: here, of more than `MODELLED`, the good ones and the newest.
    """

    def __init__(self, space: Space, **settings: Any):
        super().__init__(**settings)
        found = {name: distribution(space[name]) for name in sorted(space)}
        self._joint = {name: each for name, each in found.items() if not each.single()}

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """The space, without what has one value only."""
        return self._joint

    def _sample(self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]) -> dict[str, Any]:
        modelled: Any = _Modelled(study)
        return super()._sample(modelled, trial, search_space)


class _Modelled:
    """A study as TPE sees it: of many ended trials the good ones and the newest, and all that run."""

    def __init__(self, study: Study):
        self._study = study

    def __getattr__(self, name: str) -> Any:
        return getattr(self._study, name)

    def _get_trials(self, **which: Any) -> list[FrozenTrial]:
        trials: list[FrozenTrial] = self._study._get_trials(**which)
        ended = [trial for trial in trials if trial.state.is_finished()]
        if len(ended) <= MODELLED:
            return trials
        kept = {trial.number for trial in (*self._good(ended), *ended[-MODELLED:])}
        return [trial for trial in trials if not trial.state.is_finished() or trial.number in kept]

    def _good(self, ended: list[FrozenTrial]) -> list[FrozenTrial]:
        sign = 1 if self._study.direction == StudyDirection.MAXIMIZE else -1
        completed = [trial for trial in ended if trial.state == TrialState.COMPLETE]
        return heapq.nlargest(GOOD, completed, key=lambda trial: sign * trial.values[0])

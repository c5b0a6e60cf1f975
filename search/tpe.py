"""TPE whose suggestions do not slow down with the trials, and little with the workers."""

from bisect import insort
from itertools import islice
from typing import Any

import numpy as np
from optuna import Study
from optuna.distributions import BaseDistribution
from optuna.samplers import TPESampler
from optuna.samplers._tpe.sampler import _get_infeasible_trial_score, _get_pruned_trial_score, default_gamma
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from search.optuna_terms import distribution
from search.space import Space

MODELLED = 1000  # ended trials that a model is made of; Optuna's suggestions up to there, to the last bit
GOOD = 25  # trials that Optuna's model of good configurations is made of at the most


class Memory:
    """What TPE needs to know of a study's trials, kept from one suggestion to the next.

    Each trial is read when the next one is asked for and once more when it has ended or is paused, because Optuna's own
    way, all of them at each suggestion, costs tens of milliseconds with a thousand workers. A paused trial counts as a
    pruned one, until it goes on: how good it is is known as well, and many wait at once.

    Attributes:
        joint: The hyperparameters with more than one value.
        paused: Trials that were paused and have not gone on; pruned ones among them.
    """

    def __init__(self, space: Space):
        found = {name: distribution(space[name]) for name in sorted(space)}
        self.joint = {name: each for name, each in found.items() if not each.single()}
        self._rows = np.empty((256, len(self.joint)))  # by trial; NaN in those that lack a hyperparameter
        self._seen = 0
        self._running: set[int] = set()
        self.paused: set[int] = set()
        self._ended: list[int] = []  # completed, pruned and paused ones, in order
        self._ranks: list[tuple[tuple[float, ...], int]] = []  # of the same trials and their numbers, the best first

    @property
    def ended(self) -> int:
        """Trials that a model can be made of."""
        return len(self._ended)

    def look(self, study: Study, number: int) -> None:
        """Take in what became of the trials before this one, which is just being asked for."""
        trials = study._storage.get_all_trials(study._study_id, deepcopy=False)
        for trial in trials[self._seen : number]:
            self._take_in(trial)
        self._seen = number
        for trial in [trials[number] for number in self._running]:
            if not trial.state.is_finished() and trial.number not in self.paused:
                continue
            self._running.remove(trial.number)
            if trial.state != TrialState.FAIL:
                insort(self._ended, trial.number)
                insort(self._ranks, (_rank(trial, study), trial.number))

    def pause(self, number: int) -> None:
        """Count a trial that runs as a pruned one."""
        self.paused.add(number)

    def go_on(self, number: int) -> None:
        """Count a trial that was paused as one that runs."""
        self.paused.remove(number)
        if number in self._ended:
            self._ended.remove(number)
            self._ranks = [each for each in self._ranks if each[1] != number]
            self._running.add(number)

    def split(self, running: bool) -> tuple[list[int], list[int]]:
        """The good trials and the others as Optuna splits them: of many ended ones the best and the newest; those that
        run, when they are wanted, as others.
        """
        newest = self._ended[-MODELLED:]
        best = {number for rank, number in self._ranks[:GOOD] if rank[0] == 0 and len(self._ended) > MODELLED}
        modelled = best.union(newest)
        ranked = (number for _, number in self._ranks if number in modelled)
        good = set(islice(ranked, default_gamma(len(modelled))))
        return sorted(good), sorted(modelled - good | (self._running if running else set()))

    def values(self, numbers: list[int], names: list[str]) -> dict[str, np.ndarray]:
        """Each hyperparameter of these trials as Optuna represents it, without trials that lack one."""
        rows = self._rows[numbers]
        rows = rows[~np.isnan(rows).any(axis=1)]
        return {name: rows[:, place] for place, name in enumerate(self.joint) if name in names}

    def _take_in(self, trial: FrozenTrial) -> None:
        self._running.add(trial.number)
        if trial.number >= len(self._rows):
            self._rows = np.concatenate([self._rows, np.empty_like(self._rows)])
        known = self.joint.keys() <= trial.params.keys()
        self._rows[trial.number] = (
            [each.to_internal_repr(trial.params[name]) for name, each in self.joint.items()] if known else np.nan
        )


class JointTPE(TPESampler):
    """Multivariate TPE over hyperparameters that every trial has.

    Two things in Optuna's grow with the number of trials. It infers the space from all of them before each suggestion:
    here the space is known. And it models all of them: here, of more than `MODELLED`, the good ones and the newest.
    """

    def __init__(self, memory: Memory, **settings: Any):
        super().__init__(**settings)
        self._memory = memory

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """The space, without what has one value only."""
        return self._memory.joint

    def _sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        self._memory.look(study, trial.number)
        if not search_space or self._memory.ended < self._n_startup_trials:
            return {}
        return self._sample(study, trial, search_space)

    def _sample(self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]) -> dict[str, Any]:
        good, others = (self._estimator(numbers, search_space) for numbers in self._memory.split(self._constant_liar))
        samples = good.sample(self._rng.rng, self._n_ei_candidates)
        best = self._compare(samples, self._compute_acquisition_func(samples, good, others))
        return {name: each.to_external_repr(best[name]) for name, each in search_space.items()}

    def _estimator(self, numbers: list[int], search_space: dict[str, BaseDistribution]) -> Any:
        observations = self._memory.values(numbers, list(search_space))
        return self._parzen_estimator_cls(observations, search_space, self._parzen_estimator_parameters)


def _rank(trial: FrozenTrial, study: Study) -> tuple[float, ...]:
    """Smaller is better: completed trials by value, pruned and paused ones by how far they came, then those that cannot
    run.
    """
    if (infeasible := _get_infeasible_trial_score(trial)) > 0:
        return (2, infeasible)
    if trial.state == TrialState.COMPLETE:
        return (0, -trial.values[0] if study.direction == StudyDirection.MAXIMIZE else trial.values[0])
    return (1, *_get_pruned_trial_score(trial, study))

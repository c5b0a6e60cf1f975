"""Which hyperparameters set the best trials apart, and whether chance alone would have said the same."""

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
from scipy.special import stdtrit

from search.config import StudyConfig
from search.history import TrialRecord
from search.optuna_terms import as_if_completed

ENOUGH = 20
"""Trials with a value; a quarter of fewer is under the five that the method wants."""
BEST_SHARE = 0.25
SHUFFLES = 39
LEFT_OUT = 10
"""Parts of which each is left out once for the interval."""


@dataclass(frozen=True)
class Importance:
    """How far a hyperparameter's values among the best quarter of trials differ from those among all.

    Attributes:
        name: The hyperparameter.
        share: Of the importance of all of them, in [0, 1].
        low: Lower end of a 95 % interval from leaving out a tenth of the trials at a time.
        high: Its upper end.
        chance: The share that 95 % of shuffles stay under when values are dealt to trials at random.
    """

    name: str
    share: float
    low: float
    high: float
    chance: float

    @property
    def stands_out(self) -> bool:
        return self.share > self.chance


def importances(trials: Sequence[TrialRecord], config: StudyConfig) -> list[Importance]:
    """The most important hyperparameter first, by PED-ANOVA (Watanabe et al. 2023); empty with under `ENOUGH` trials.

    Every trial counts with its best value, a pruned one with what it had reached. The method weighs values against how
    often the sampler tried them, so a region is not important because it was visited often.
    """
    study = as_if_completed(trials, config.space, config.objective)
    values = np.array([trial.value for trial in study.get_trials(deepcopy=False)], dtype=np.float64)
    if len(values) < ENOUGH or np.ptp(values) == 0:
        return []
    loss = -values if config.objective.direction == "maximize" else values
    whole = _raw(study, loss)
    total = sum(whole.values())
    if not total > 0:
        return []
    left_out = [_shares(_raw(study, np.where(_part(loss) == part, math.inf, loss))) for part in range(LEFT_OUT)]
    draw = np.random.default_rng(config.seed)
    shuffled = [_raw(study, draw.permutation(loss)) for _ in range(SHUFFLES)]
    return [_importance(name, raw / total, total, left_out, shuffled) for name, raw in whole.items()]


def _importance(
    name: str,
    share: float,
    total: float,
    left_out: Sequence[Mapping[str, float]],
    shuffled: Sequence[Mapping[str, float]],
) -> Importance:
    """The interval is the jackknife's, cut to [0, 1]."""
    without = np.array([shares.get(name, 0.0) for shares in left_out])
    error = math.sqrt((LEFT_OUT - 1) * float(without.var()))
    half = float(stdtrit(LEFT_OUT - 1, 0.975)) * error
    chance = float(np.quantile([raw.get(name, 0.0) for raw in shuffled], 0.95)) / total
    return Importance(name, share, max(0.0, share - half), min(1.0, share + half), chance)


def _part(loss: NDArray[np.float64]) -> NDArray[np.int64]:
    return np.arange(len(loss)) % LEFT_OUT


def _shares(raw: Mapping[str, float]) -> dict[str, float]:
    total = sum(raw.values())
    return {name: value / total if total else 0.0 for name, value in raw.items()}


def _raw(study: optuna.Study, loss: NDArray[np.float64]) -> dict[str, float]:
    """Importances by name when trial n has `loss[n]`, lower being better; trials with an infinite loss are left out."""
    evaluator = PedAnovaImportanceEvaluator(target_quantile=BEST_SHARE, region_quantile=1.0, evaluate_on_local=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that low targets are the good ones: they are
        return get_param_importances(
            study, evaluator=evaluator, target=lambda trial: float(loss[trial.number]), normalize=False
        )

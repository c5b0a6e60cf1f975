"""Trials that go as recorded ones went: extremely randomised trees over recorded curves, with their scatter.

A configuration's value without luck is the trees' mean at its best epoch. Luck is the out-of-fold residual of one of
the ten nearest recorded trials, whole curves at a time: so it keeps its course over epochs and is small where training
went nowhere. It holds the trees' own error too, so it is an upper bound of what another seed would do.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import spearmanr
from sklearn.ensemble import ExtraTreesRegressor
from sklearn.model_selection import KFold, cross_val_predict
from sklearn.neighbors import NearestNeighbors

from benchmarks.simulation.curves import HYPERPARAMETERS, read_curves
from search.sampling import derive_seed

RATES = np.linspace(-5.0, -2.0, 121)  # log10 of the learning rates that are told apart
BATCHES, STRENGTHS, DEPTHS = (16, 32, 64), (0.0, 0.25, 0.5, 0.75, 1.0), tuple(range(6))
NEIGHBOURS = 10
FOLDS = 10


def features(points: pd.DataFrame) -> np.ndarray:
    """Shape (points, 4), each hyperparameter on about the same scale."""
    return np.column_stack(
        [
            np.log10(points["learning_rate"]) / 1.5,
            np.log2(points["batch_size"]) - 5,
            2 * points["augmentation_strength"],
            points["freeze_depth"] / 2.5,
        ]
    )


def forest() -> ExtraTreesRegressor:
    return ExtraTreesRegressor(300, min_samples_leaf=2, random_state=0)


@dataclass(frozen=True)
class Trust:
    """How far out-of-fold predictions are from recorded values: root mean squares, and Spearman's rank correlations."""

    error: float
    error_of_best: float
    rank: float
    rank_of_best: float


class Surrogate:
    """Curves and seconds of any configuration of the space that was recorded."""

    def __init__(self, table: pd.DataFrame | None = None, luck: float = 1.0):
        """With a share of the scatter that was found."""
        table = read_curves() if table is None else table
        points = table.groupby("trial")[list(HYPERPARAMETERS)].first()
        curves = table.pivot(index="trial", columns="epoch", values="val_auc").to_numpy()  # (trials, epochs)
        known = features(points)
        folds = KFold(FOLDS, shuffle=True, random_state=0)
        foretold = cross_val_predict(forest(), known, curves, cv=folds)
        self.trust = _trust(foretold, curves)
        self.epochs = curves.shape[1]
        self._residuals = luck * (curves - foretold)
        self._grid = pd.DataFrame(
            [(10**rate, b, s, d) for rate in RATES for b in BATCHES for s in STRENGTHS for d in DEPTHS],
            columns=list(HYPERPARAMETERS),
        )
        at = features(self._grid)
        self._means = forest().fit(known, curves).predict(at)
        self._near = NearestNeighbors(n_neighbors=NEIGHBOURS).fit(known).kneighbors(at, return_distance=False)
        warm = table[table["epoch"] > 1]  # the first one traces graphs
        # Not the median: other work on the machine only ever made an epoch longer.
        self._seconds = warm.groupby(["freeze_depth", "batch_size"])["train_seconds"].quantile(0.25).to_dict()

    def value(self, parameters: Mapping[str, Any]) -> float:
        """Without luck, at its best epoch."""
        return float(self._means[self._place(parameters)].max())

    @cached_property
    def optimum(self) -> float:
        """The largest value in the space."""
        return float(self._means.max())

    @property
    def luck(self) -> float:
        """Standard deviation of the residuals."""
        return float(self._residuals.std())

    def seconds(self, parameters: Mapping[str, Any], epoch: int) -> float:
        return float(self._seconds[parameters["freeze_depth"], parameters["batch_size"]])

    def metrics(self, parameters: Mapping[str, Any], seed: int, epoch: int) -> dict[str, float]:
        place = self._place(parameters)
        chosen = self._near[place][derive_seed(seed, "luck") % NEIGHBOURS]
        return {"val_auc": float(np.clip(self._means[place, epoch - 1] + self._residuals[chosen, epoch - 1], 0, 1))}

    def checkpoint_bytes(self, parameters: Mapping[str, Any]) -> float:
        return 0.0

    def _place(self, parameters: Mapping[str, Any]) -> int:
        rate = round((np.log10(parameters["learning_rate"]) - RATES[0]) / (RATES[1] - RATES[0]))
        batch, strength = BATCHES.index(parameters["batch_size"]), round(parameters["augmentation_strength"] * 4)
        of_rate = (rate * len(BATCHES) + batch) * len(STRENGTHS) + strength
        return of_rate * len(DEPTHS) + int(parameters["freeze_depth"])


def _trust(foretold: np.ndarray, curves: np.ndarray) -> Trust:
    best, told = curves.max(axis=1), foretold.max(axis=1)
    return Trust(
        float(np.sqrt(np.mean((foretold - curves) ** 2))),
        float(np.sqrt(np.mean((told - best) ** 2))),
        float(spearmanr(foretold.ravel(), curves.ravel())[0]),
        float(spearmanr(told, best)[0]),
    )

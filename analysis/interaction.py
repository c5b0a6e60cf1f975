"""Two hyperparameters together: how the value depends on one, at each setting of another."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from search.config import Objective
from search.history import TrialRecord
from search.space import FloatRange, IntRange

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Interaction:
    """n trials on a grid of k settings of one hyperparameter by m equal parts of another's range.

    Attributes:
        across: Shape (n,): the ranged hyperparameter of each trial.
        down: Shape (n,): the other one.
        value: Shape (n,): best objective value of each trial.
        number: Shape (n,): of each trial.
        edges: Shape (m + 1,): of the parts, equal on the range's own scale.
        settings: Shape (k,): different settings of the other one, rising.
        count: Shape (k, m): trials in each cell.
        mean: Shape (k, m): their mean value; NaN in an empty cell.
        best_at: Shape (k,): `across` of the best trial at each setting.
    """

    across: Floats
    down: Floats
    value: Floats
    number: NDArray[np.int64]
    edges: Floats
    settings: Floats
    count: NDArray[np.int64]
    mean: Floats
    best_at: Floats


def interact(
    trials: Iterable[TrialRecord],
    objective: Objective,
    across: tuple[str, FloatRange | IntRange],
    down: str = "freeze_depth",
    parts: int = 6,
) -> Interaction:
    """Every trial that has both hyperparameters and a value, with its best one: of a pruned trial, what it reached."""
    name, span = across
    points = [
        (trial.parameters[name], trial.parameters[down], best[1], trial.number)
        for trial in trials
        if {name, down} <= trial.parameters.keys() and (best := trial.best(objective))
    ]
    x, y, value, number = np.array(points, dtype=np.float64).reshape(-1, 4).T
    space = np.geomspace if span.log else np.linspace
    edges = space(span.low, span.high, parts + 1)
    settings, row = np.unique(y, return_inverse=True)
    column = np.clip(np.searchsorted(edges, x, side="right") - 1, 0, parts - 1)
    count, total = np.zeros((len(settings), parts), dtype=np.int64), np.zeros((len(settings), parts))
    np.add.at(count, (row, column), 1)
    np.add.at(total, (row, column), value)
    mean = np.divide(total, count, out=np.full(count.shape, np.nan), where=count > 0)
    pick = np.argmax if objective.direction == "maximize" else np.argmin
    best_at = np.array([x[row == k][pick(value[row == k])] for k in range(len(settings))], dtype=np.float64)
    return Interaction(x, y, value, number.astype(np.int64), edges, settings, count, mean, best_at)

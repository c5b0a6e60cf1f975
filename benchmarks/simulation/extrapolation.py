"""Whether a learning curve's beginning, continued, tells its end better than its newest value does.

python -m benchmarks.simulation.extrapolation                        # on the recorded curves; a second

For the first epochs of every curve: rank correlation of several predictions with where the trial ended (mean of its
three best values), over all trials and among the better third, and how many of the best tenth a rung would keep that
lets the better third go on.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import KFold, cross_val_predict

from benchmarks.simulation.curves import read_curves

EPOCHS = (1, 2, 3, 4)
Floats = NDArray[np.floating]


def predictions(values: Floats, losses: Floats, ended: Floats) -> Iterator[tuple[str, Floats]]:
    """By name, [trials], larger is better; from the first epochs' `values` and `losses`, [trials, epochs] each."""
    count = values.shape[1]
    yield "newest value", values[:, -1]
    yield "best value", values.max(axis=1)
    yield "validation loss", -losses[:, -1]
    features = np.c_[values, np.minimum(losses, 5)]
    folds = KFold(6, shuffle=True, random_state=0)
    yield (
        "ridge regression, of other trials' curves",
        cross_val_predict(RidgeCV(np.logspace(-3, 3, 13)), features, ended, cv=folds),
    )
    if count == 1:
        return
    yield "mean of two", values[:, -2:].mean(axis=1)
    for name, scale in (("line over log epoch", np.log), ("a - b / epoch", np.reciprocal)):
        seen, last = scale(np.arange(1.0, count + 1)), scale(9.0)
        slope = np.linalg.lstsq(np.c_[np.ones(count), seen], values.T, rcond=None)[0][1]
        for share in (1, 0.25):
            yield f"{name}, {share} of its slope", values.mean(axis=1) + share * slope * (last - seen.mean())


def main() -> None:
    table = read_curves()
    values, losses = (
        table.pivot(index="trial", columns="epoch", values=name).to_numpy() for name in ("val_auc", "val_loss")
    )
    ended = np.sort(values, axis=1)[:, -3:].mean(axis=1)
    order = np.argsort(-ended)
    third, tenth = order[: len(order) // 3], order[: len(order) // 10]
    for epoch in EPOCHS:
        for name, predicted in predictions(values[:, :epoch], losses[:, :epoch], ended):
            kept = np.isin(tenth, np.argsort(-predicted)[: len(third)]).sum()
            every, better = (spearmanr(predicted[chosen], ended[chosen])[0] for chosen in (slice(None), third))
            told = f"{every:.2f}, {better:.2f} among the better third, keeps {kept} of {len(tenth)}"
            print(f"epoch {epoch}, {name:41}: {told}")


if __name__ == "__main__":
    main()

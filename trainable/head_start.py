"""A head that has learnt already: logistic regression on what the untouched backbone makes of the training images.

Fine-tuning from a random head spends its first steps on the head, and moves good features for the sake of a bad one;
from a probed one it starts where freezing everything would end (Kumar et al. 2022, linear probing then fine-tuning).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1)  # inverse strengths of the L2 penalty that cross-validation chooses from
FOLDS = 5


@dataclass(frozen=True)
class Head:
    """First values of a head without hidden layer: kernel [features, classes], bias [classes]."""

    kernel: Floats
    bias: Floats


def probe(
    features: npt.NDArray[np.floating[Any]],
    labels: npt.NDArray[np.int64],
    groups: npt.NDArray[Any],
    class_weights: Floats,
) -> Head:
    """Fit a head to features, as strongly penalised as predicts unseen groups best.

    Args:
        features: [n, features] pooled outputs of the backbone.
        labels: [n] class indices; each of them must occur.
        groups: [n] what must not be torn apart when the penalty is chosen.
        class_weights: [classes] weight of an image of each class.

    Returns:
        Its logits are those of the regression; with two classes each gets half of the one the regression has.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import log_loss
    from sklearn.model_selection import StratifiedGroupKFold

    classes, weights = np.arange(len(class_weights)), class_weights[labels]
    mean, spread = features.mean(axis=0), features.std(axis=0) + 1e-6
    standard = ((features - mean) / spread).astype(np.float64)

    def fitted(penalty: float, chosen: Any) -> LogisticRegression:
        regression = LogisticRegression(C=penalty, max_iter=300)
        return regression.fit(standard[chosen], labels[chosen], weights[chosen])

    def loss(penalty: float) -> float:
        losses = []
        for inside, outside in folds:
            predicted = fitted(penalty, inside).predict_proba(standard[outside])
            losses.append(log_loss(labels[outside], predicted, sample_weight=weights[outside], labels=classes))
        return float(np.mean(losses))

    fewest = min(len(set(groups[labels == each])) for each in classes)
    count = min(FOLDS, fewest)
    folds = []
    if count > 1:
        splits = StratifiedGroupKFold(count).split(standard, labels, groups)
        folds = [(inside, outside) for inside, outside in splits if len(set(labels[inside])) == len(classes)]
    penalty = min(PENALTIES, key=loss) if folds else PENALTIES[1]
    regression = fitted(penalty, np.arange(len(labels)))
    kernel, bias = regression.coef_.T / spread[:, None], regression.intercept_ - (mean / spread) @ regression.coef_.T
    if len(classes) == 2:
        kernel, bias = np.hstack([-kernel, kernel]) / 2, np.concatenate([-bias, bias]) / 2
    return Head(kernel.astype(np.float32), bias.astype(np.float32))

"""What the answer of a search is worth: its best configuration trained on fresh seeds, the same way for every system,
and scored on images that no search has seen.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from task import EPOCHS, METRIC, Task

SEEDS = (101, 102, 103)


def judge(task: Task, line: Mapping[str, Any]) -> dict[str, Any]:
    """Score the configuration that a search's run names.

    Args:
        task: Images and weights; also has the test part.
        line: Of the results. Its best epoch says how long its configuration is trained.

    Returns:
        The configuration, the passes, and `test_auc` of each seed.
    """
    from trainable.backbone import Backbone
    from trainable.dataset import ImageSet
    from trainable.hyperparameters import Hyperparameters
    from trainable.metrics import scores
    from trainable.network import Network, NetworkKey
    from trainable.settings import ModelSettings
    from trainable.training import Task as Images
    from trainable.training import Training, predict

    best = max(line["epochs"], key=lambda epoch: epoch["value"])
    passes = min(EPOCHS, max(1, round(best["epoch"])))
    model = ModelSettings(architecture="resnet50", weights=task.weights, batch_norm="frozen")
    chosen = Hyperparameters(**best["parameters"])
    train, test = (ImageSet.open(task.folder / "arrays", part) for part in ("train", "test"))
    network = Network(
        Backbone(model, train.images.shape[1], 1), NetworkKey.of(chosen, model, train.images.shape[-1], 2)
    )
    found = []
    for seed in SEEDS:
        training = Training(network, chosen, Images(train, None, 0, 1), seed, passes)
        while training.epoch < passes:
            training.run_epoch()
        found.append(scores(test.labels, predict(network, test.images), 0)[METRIC.removeprefix("val_")])
    return {"parameters": best["parameters"], "passes": passes, "seeds": list(SEEDS), "test_auc": found}


def judged(folder: Path) -> list[dict[str, Any]]:
    """What has been judged so far."""
    path = folder / "judged.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

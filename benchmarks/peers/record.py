"""Curves of random configurations trained to the end, none stopped: from them it can be told, without training, what
any pruner would have found. Each epoch is half a pass, scored on validation images and on those that judge answers.
"""

import csv
import multiprocessing
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import cache
from pathlib import Path
from typing import Any

from task import BATCH_SIZES, DEEPEST, EPOCHS, IMAGE_SIZE, LEARNING_RATES, STRENGTH_STEP, Task

PARTS = 2  # epochs that a pass is divided into
SEED = 7
SCORES = ("val_auc", "val_loss", "val_accuracy", "test_auc")
HYPERPARAMETERS = ("learning_rate", "batch_size", "augmentation_strength", "freeze_depth")
COLUMNS = ("trial", *HYPERPARAMETERS, "epoch", *SCORES, "train_seconds")

Row = dict[str, Any]


def record(folder: Path, output: Path, count: int) -> None:
    """Train `count` configurations, one on each core; a row per epoch in `output`. Those that are there are not trained
    again.
    """
    there: set[int] = set()
    if output.exists():
        with output.open(newline="") as stream:
            there = {int(row["trial"]) for row in csv.DictReader(stream)}
    else:
        _append(output, [dict(zip(COLUMNS, COLUMNS, strict=True))])
    cores = len(os.sched_getaffinity(0))
    with ProcessPoolExecutor(cores, multiprocessing.get_context("spawn"), _start) as pool:
        waiting = [pool.submit(_train, folder, number) for number in range(count) if number not in there]
        for done in as_completed(waiting):
            rows = done.result()
            _append(output, rows)
            best = max(row["val_auc"] for row in rows)
            print(f"trial {rows[0]['trial']}: {drawn(rows[0]['trial'])}, best {best:.3f}", flush=True)


def _append(output: Path, rows: list[Row]) -> None:
    with output.open("a", newline="") as stream:
        csv.DictWriter(stream, COLUMNS, lineterminator="\n").writerows(rows)


def drawn(number: int) -> dict[str, Any]:
    """Configuration of a trial; the same for every `count`."""
    import numpy as np

    generator = np.random.default_rng([SEED, number])
    low, high = np.log(LEARNING_RATES)
    return {
        "learning_rate": float(f"{np.exp(generator.uniform(low, high)):.6g}"),
        "batch_size": int(generator.choice(BATCH_SIZES)),
        "augmentation_strength": STRENGTH_STEP * int(generator.integers(round(1 / STRENGTH_STEP) + 1)),
        "freeze_depth": int(generator.integers(DEEPEST + 1)),
    }


def _start() -> None:
    from trainable.devices import apply_devices, plan_devices

    apply_devices(plan_devices(1, 0, []))


@cache
def _backbone(weights: Path) -> Any:
    from trainable.backbone import Backbone
    from trainable.settings import ModelSettings

    model = ModelSettings(architecture="resnet50", weights=weights, batch_norm="frozen", precision="mixed_bfloat16")
    return model, Backbone(model, IMAGE_SIZE, 1)


@cache
def _network(weights: Path, depth: int) -> Any:
    from trainable.hyperparameters import Hyperparameters
    from trainable.network import Network, NetworkKey

    model, backbone = _backbone(weights)
    return Network(backbone, NetworkKey.of(Hyperparameters(freeze_depth=depth), model, 1, 2))


def _train(folder: Path, number: int) -> list[Row]:
    from trainable.dataset import ImageSet
    from trainable.hyperparameters import Hyperparameters
    from trainable.metrics import scores
    from trainable.training import Task as Images
    from trainable.training import Training, predict

    parameters = drawn(number)
    train, validation, test = (ImageSet.open(folder / "arrays", part) for part in ("train", "validation", "test"))
    network = _network(Task.read(folder).weights, parameters["freeze_depth"])
    chosen = Hyperparameters(epochs_per_pass=PARTS, **parameters)
    training = Training(network, chosen, Images(train, validation, 0, 1), 1000 + number, PARTS * EPOCHS)

    def rows() -> Iterator[Row]:
        while training.epoch < training.epochs:
            result = training.run_epoch()
            found = result.metrics | {"test_auc": scores(test.labels, predict(network, test.images), 0)["auc"]}
            figures = {name: float(f"{found[name]:.6g}") for name in SCORES}
            seconds = {"train_seconds": round(result.seconds["train"], 3)}
            yield {"trial": number, **parameters, "epoch": result.epoch, **figures, **seconds}

    return list(rows())

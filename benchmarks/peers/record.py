"""Curves of random configurations trained to the end, none stopped: from them it can be told, without training, what
any pruner would have found. Each epoch is half a pass, scored on validation images and on those that judge answers.
"""

import csv
import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import cache
from pathlib import Path
from typing import Any

from task import BATCH_SIZES, DEEPEST, EPOCHS, LEARNING_RATES, METRIC, STRENGTH_STEP, Task

PARTS = 2  # epochs that a pass is divided into
SEED = 7
SCORES = ("val_auc", "val_loss", "val_accuracy", "test_auc")

Row = dict[str, Any]


def record(folder: Path, output: Path, count: int) -> None:
    """Train `count` configurations, one on each core; a row per epoch in `output`. Those that are there are not trained
    again.
    """
    there: set[int] = set()
    if output.exists():
        with output.open(newline="") as stream:
            there = {int(row["trial"]) for row in csv.DictReader(stream)}
    cores = len(os.sched_getaffinity(0))
    with ProcessPoolExecutor(cores, multiprocessing.get_context("spawn")) as pool:
        waiting = [pool.submit(_train, folder, number) for number in range(count) if number not in there]
        for done in as_completed(waiting):
            rows = done.result()
            _append(output, rows)
            best = max(row["val_auc"] for row in rows)
            print(f"trial {rows[0]['trial']}: {drawn(rows[0]['trial'])}, best {best:.3f}", flush=True)


def _append(output: Path, rows: list[Row]) -> None:
    with output.open("a", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
        if not stream.tell():
            writer.writeheader()
        writer.writerows(rows)


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


@cache
def _workshop(folder: Path) -> Any:
    """A worker of the product, without Ray, that keeps no features."""
    from trainable.settings import ModelSettings
    from trainable.workshop import Workshop

    model = ModelSettings(
        weights=Task.read(folder).weights, batch_norm="frozen", precision="mixed_bfloat16", features="off"
    )
    study = {
        "arrays": folder / "arrays",
        "features": folder / "scratch",
        "identity": "",
        "model": model.model_dump(),
        "training": {"epochs_per_pass": PARTS},
        "objective": (METRIC, "maximize"),
        "positive": 0,
        "seed": 1,
        "cpus": 1,
        "gpus": 0,
    }
    return Workshop(study)


def _train(folder: Path, number: int) -> list[Row]:
    workshop = _workshop(folder)  # before TensorFlow is imported, because it sets limits
    from trainable.dataset import ImageSet
    from trainable.metrics import scores
    from trainable.training import predict

    parameters = drawn(number)
    test = ImageSet.open(folder / "arrays", "test")
    training = workshop.training({"parameters": parameters, "seed": 1000 + number, "epochs": PARTS * EPOCHS})
    rows = []
    while training.epoch < training.epochs:
        result = training.run_epoch()
        probabilities = predict(training.network, test.images)
        found = result.metrics | {"test_auc": scores(test.labels, probabilities, 0)["auc"]}
        figures = {name: float(f"{found[name]:.6g}") for name in SCORES}
        seconds = {"train_seconds": round(result.seconds["train"], 3)}
        rows.append({"trial": number, **parameters, "epoch": result.epoch, **figures, **seconds})
    return rows

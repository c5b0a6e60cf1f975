"""Run folders as a search leaves them, drawn from random numbers: nothing is trained."""

import csv
import json
import random
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from search.config import StudyConfig
from search.database import create
from search.entries import Entry
from search.events import Asked, EpochReported, Event, Failed, Noted, SessionOpened, Started, to_json
from search.journal import write_journal
from search.recovery import journal_of
from search.safe_yaml import to_yaml

SPACE = {
    "learning_rate": {"type": "float", "low": 1e-5, "high": 1e-2, "log": True},
    "batch_size": {"type": "choice", "values": [16, 32, 64]},
    "augmentation_strength": {"type": "float", "low": 0.0, "high": 1.0, "step": 0.25},
    "freeze_depth": {"type": "int", "low": 0, "high": 5},
}
RUNGS = {1: 0.62, 3: 0.72}
"""Trials below this value at this epoch are pruned."""


@dataclass
class Drawing:
    """What to draw.

    Attributes:
        trials: Asked for; the last `open_trials` of them have not ended.
        failing: Every so many trials one fails.
        reruns: Of each of the three best; 0 leaves the winner unnamed.
        evaluated: Whether `final/` is there.
    """

    trials: int = 24
    open_trials: int = 0
    epochs: int = 9
    failing: int = 11
    reruns: int = 2
    evaluated: bool = True
    classes: tuple[str, ...] = ("ill", "well")
    failure: str = "loss is NaN"
    worker: str = "host"
    seed: int = 0
    settings: dict[str, Any] = field(default_factory=dict)


def draw_run(root: Path, drawing: Drawing | None = None) -> Path:
    """Write a run folder that commands and reports take for a real one."""
    drawing = drawing or Drawing()
    root.mkdir(parents=True)
    document = {
        "seed": drawing.seed,
        "data": {"path": "images", "groups": "images/groups.csv"},
        "model": {"architecture": "resnet50"},
        "space": SPACE,
        "budget": {"trials": drawing.trials, "epochs": drawing.epochs},
        "record": {"versions": {"python": "3.11.7"}, "data": {"fingerprint": "f" * 64}, "weights_sha256": "a" * 64},
        **drawing.settings,
    }
    (root / "study.yaml").write_text(to_yaml(StudyConfig.parse(document).dump()), encoding="utf-8")
    write_events(root / "study.db", _events(drawing))
    _write_images(root, drawing)
    if drawing.evaluated:
        _write_evaluation(root / "final", drawing)
    return root


def write_events(path: Path, events: Iterable[tuple[float, Event]]) -> None:
    """A ledger of these events, in place of any that is there, each at its seconds of the session."""
    entries = [
        Entry(number, 0.0, float(elapsed), event.kind, to_json(event))
        for number, (elapsed, event) in enumerate(events, start=1)
    ]
    create(path, entries)
    write_journal(journal_of(path), entries)


def _events(drawing: Drawing) -> list[tuple[float, Event]]:
    draw = random.Random(drawing.seed)
    free, found, values = [1.0, 1.0], [(0.0, SessionOpened("host", 1))], {}
    for number in range(drawing.trials):
        lane = free.index(min(free))
        point = _point(draw)
        run = _run(draw, number, 0, point, free[lane], drawing)
        if number >= drawing.trials - drawing.open_trials:
            run = run[:2]
        elif drawing.failing and number % drawing.failing == drawing.failing - 1:
            run = [*run[:2], (run[1][0] + 1, Failed(number, drawing.failure))]
        free[lane] = run[-1][0] + 0.2
        found += run
        completed = run[-1][1]
        if isinstance(completed, EpochReported) and completed.verdict == "complete":
            values[number] = (max(e.metrics["val_auc"] for _, e in run if isinstance(e, EpochReported)), point)
    best = sorted(values, key=lambda number: -values[number][0])[:3]
    now = max(at for at, _ in found) + 5
    for number in best:
        for repeat in range(1, drawing.reruns + 1):
            run = _run(draw, number, repeat, values[number][1], now, drawing)
            now = run[-1][0] + 0.2
            found += run
    if drawing.evaluated:
        found.append((now + 9, Noted("test_opened", {"at": "2026-01-01T00:00:00+00:00", "times": 1})))
    return sorted(found, key=lambda pair: pair[0])


def _point(draw: random.Random) -> dict[str, Any]:
    return {
        "learning_rate": 10 ** draw.uniform(-5, -2),
        "batch_size": draw.choice([16, 32, 64]),
        "augmentation_strength": draw.choice([0.0, 0.25, 0.5, 0.75, 1.0]),
        "freeze_depth": draw.randrange(6),
    }


def _run(
    draw: random.Random, number: int, repeat: int, point: dict[str, Any], begin: float, drawing: Drawing
) -> list[tuple[float, Event]]:
    """Worth most at a learning rate of 3e-4 and depth 3; deeper is faster."""
    distance = abs(np.log10(point["learning_rate"]) + 3.5) / 1.5 + abs(point["freeze_depth"] - 3) / 6
    worth, pace = 0.9 - 0.16 * distance, 12.0 - 1.8 * point["freeze_depth"]
    origin = "rerun" if repeat else "sampler"
    run: list[tuple[float, Event]] = [
        (begin, Asked(number, point, draw.randrange(2**32), origin, repeat)),
        (begin + 0.1, Started(number, repeat, f"{drawing.worker}/{number % 2}")),
    ]
    for epoch in range(1, drawing.epochs + 1):
        value = min(1.0, worth - 0.25 * 0.6**epoch + draw.gauss(0, 0.015))
        ends = not repeat and value < RUNGS.get(epoch, 0.0)
        verdict = "prune" if ends else "complete" if epoch == drawing.epochs else "continue"
        seconds = {"train": pace * draw.uniform(0.9, 1.1), "validation": 0.5, "checkpoint": 0.1}
        seconds |= {"setup": 0.2} if epoch == 1 else {}
        metrics = {"val_auc": value, "val_loss": 1 - value, "trainable_share": 1 - point["freeze_depth"] / 5.1}
        reason = f"behind others at epoch {epoch}" if ends else None
        at = run[-1][0] + sum(seconds.values())
        run.append((at, EpochReported(number, epoch, metrics, verdict, repeat, reason, seconds)))
        if ends:
            break
    return run


def _write_images(root: Path, drawing: Drawing) -> None:
    """Sixty images; every fifth to validation, the next to test, the others to train, by groups of two."""
    parts = ["validation", "test", "train", "train", "train"]
    rows = [
        (f"{name}/{place}.png", f"{place:03}{name}", name, f"{name} {place // 2}", parts[place // 2 % 5])
        for name in drawing.classes
        for place in range(30)
    ]
    _write_csv(root / "split.csv", ("file", "sha256", "class", "group", "part"), rows)
    train = [row for row in rows if row[4] == "train"]
    arrays = root / "arrays"
    arrays.mkdir()
    draw = np.random.default_rng(drawing.seed)
    np.save(arrays / "train.npy", draw.integers(0, 256, (len(train), 16, 16, 1), dtype=np.uint8))
    table = [(file, sha, name, drawing.classes.index(name), group) for file, sha, name, group, _ in train]
    _write_csv(arrays / "train.csv", ("file", "sha256", "class", "label", "group"), table)
    (arrays / "train.json").write_text(json.dumps({"classes": list(drawing.classes)}), encoding="utf-8")


def _write_evaluation(final: Path, drawing: Drawing) -> None:
    final.mkdir()
    first, second = drawing.classes[:2]
    draw = random.Random(drawing.seed)
    rows = []
    for place in range(80):
        actual = place % 2
        probability = min(0.999, max(0.001, draw.gauss(0.3 + 0.4 * actual, 0.25)))
        predicted = second if probability >= 0.5 else first
        part = "test" if place % 4 < 2 else "validation"
        file = f"{(first, second)[actual]}/{place}.png"
        group = f"g{place // 2}"
        rows.append((file, group, part, (first, second)[actual], predicted, 1 - probability, probability))
    header = ("file", "group", "part", "class", "predicted", f"probability_{first}", f"probability_{second}")
    _write_csv(final / "predictions.csv", header, rows)
    history = [(epoch, 0.5 + epoch / 20, 0.5 + epoch / 30, 1 / epoch, 1.2 / epoch) for epoch in range(1, 9)]
    _write_csv(final / "history.csv", ("epoch", "accuracy", "val_accuracy", "loss", "val_loss"), history)
    score = {"value": 0.8, "interval": [0.7, 0.9]}
    names = ("accuracy", "auc", "sensitivity", "specificity", "expected_calibration_error")
    document = {
        **dict.fromkeys(names, score),
        "validation": dict.fromkeys(names, score),
        "bootstrap": {"repeats": 2000, "level": 0.95, "seed": 1, "resampled": "groups"},
        "threshold": 0.5,
        "positive_class": second,
        "classes": [first, second],
        "counts": {"images": {"test": {first: 20, second: 20}}, "groups": {"test": 20}},
        "test_opened": {"at": "2026-01-01T00:00:00+00:00", "times": 1},
        "best_epoch": 8,
    }
    (final / "metrics.json").write_text(json.dumps(document), encoding="utf-8")


def _write_csv(path: Path, header: tuple[str, ...], rows: list[tuple[Any, ...]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(header)
        writer.writerows(rows)

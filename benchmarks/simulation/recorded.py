"""What pruners find, and what they spend, among configurations of which the whole curves are known: the product's own
decisions and Ray Tune's on curves of ResNet50, two workers in virtual time, no model in between.

python -m benchmarks.simulation.recorded                         # 300 searches each; minutes
python -m benchmarks.simulation.recorded --without 3             # where no configuration stands out

One in three goes on, and the first look is after 1 pass, where nothing else is said. A search gets 24 of the recorded
configurations: half of them at random; of the others, as a sampler would propose them, the better the likelier. What a
sampler learns from early values, and where that leads it, is not in this.
"""

import argparse
import os
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache
from itertools import repeat
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.simulation.cluster import Cluster, Simulation
from benchmarks.simulation.compare import SPACE, driving
from benchmarks.simulation.curves import HYPERPARAMETERS, read_curves
from benchmarks.simulation.driver import FINISHED, Driver, Work
from search.config import StudyConfig

RECORDED = Path(__file__).resolve().parents[1] / "curves" / "ct_resnet50_64px.csv"
PARTS, EPOCHS, TRIALS, AT_RANDOM = 2, 18, 24, 12  # an epoch is half a pass
WORKERS = 2
KEENNESS = 15.0  # of the second half's choice: of two configurations 0.05 apart the better one is twice as likely
STOCK = "Ray Tune's ASHA"

_PROMOTION = {"variant": "promotion"}
_SYNCHRONOUS = {"variant": "synchronous"}
PRUNERS: dict[str, dict[str, Any]] = {
    "none": {"name": "none"},
    "stopping": {"min_epochs": 2},
    "stopping, from 1/2": {},
    "promotion": {**_PROMOTION, "min_epochs": 2},
    "promotion, from 1/2": _PROMOTION,
    "synchronous": {**_SYNCHRONOUS, "min_epochs": 2},
    "synchronous by 4": {**_SYNCHRONOUS, "min_epochs": 2, "reduction_factor": 4},
    "promotion by 4": {**_PROMOTION, "min_epochs": 2, "reduction_factor": 4},
    "promotion by 4, from 1/2": {**_PROMOTION, "reduction_factor": 4},
    "promotion by 2, from 1/2": {**_PROMOTION, "reduction_factor": 2},
}


class Curves:
    """The recorded trials, found by their configuration.

    Args:
        without: How many of them no search gets, those with the highest values: any pruner finds one that stands out.

    Attributes:
        points: Their configurations.
        values: Validation AUC [trials, epochs].
        tests: Test AUC [trials, epochs], each the mean of the five around it.
    """

    def __init__(self, table: pd.DataFrame, without: int):
        rows = table.groupby("trial")[list(HYPERPARAMETERS)].first().to_dict("records")
        self.points: list[dict[str, Any]] = [
            row | {"batch_size": int(row["batch_size"]), "freeze_depth": int(row["freeze_depth"])} for row in rows
        ]
        self.values = table.pivot(index="trial", columns="epoch", values="val_auc").to_numpy()
        tests = table.pivot(index="trial", columns="epoch", values="test_auc").to_numpy()
        padded = np.pad(tests, ((0, 0), (2, 2)), mode="edge")
        self.tests = np.lib.stride_tricks.sliding_window_view(padded, 5, axis=1).mean(axis=2)
        # Not the first epochs, which trace graphs.
        self._seconds = table.groupby("trial")["train_seconds"].median().to_numpy()
        self._place = {tuple(point[name] for name in HYPERPARAMETERS): place for place, point in enumerate(self.points)}
        self._offered = np.sort(np.argsort(self.values.max(axis=1))[: len(self.points) - without])

    def place(self, parameters: Mapping[str, Any]) -> int:
        return self._place[tuple(parameters[name] for name in HYPERPARAMETERS)]

    def seconds(self, parameters: Mapping[str, Any], epoch: int) -> float:
        return float(self._seconds[self.place(parameters)])

    def metrics(self, parameters: Mapping[str, Any], seed: int, epoch: int) -> dict[str, float]:
        return {"val_auc": float(self.values[self.place(parameters), epoch - 1])}

    def checkpoint_bytes(self, parameters: Mapping[str, Any]) -> float:
        return 0.0

    def draw(self, seed: int) -> list[dict[str, Any]]:
        """The configurations of one search, in order."""
        generator = np.random.default_rng(seed)
        first = generator.choice(self._offered, AT_RANDOM, replace=False)
        rest = np.setdiff1d(self._offered, first)
        merit = np.sort(self.values[rest], axis=1)[:, -5:].mean(axis=1)
        chosen = rest[np.argsort(-KEENNESS * merit - generator.gumbel(size=len(rest)))][: TRIALS - AT_RANDOM]
        return [self.points[place] for place in (*first, *generator.permutation(chosen))]


class StockDriver:
    """Ray Tune's scheduler as its documentation shows it: a look after every pass, one in three goes on."""

    def __init__(self, points: list[dict[str, Any]]):
        from ray.tune.schedulers.async_hyperband import _Bracket

        self._bracket = _Bracket(PARTS, EPOCHS, 3, 0)
        self._left = list(enumerate(points))

    def ask(self, name: str, now: float) -> tuple[Work | str | None, float]:
        if not self._left:
            return FINISHED, 0.0
        number, parameters = self._left.pop(0)
        return Work(name, number, parameters, 0, 1), 0.0

    def tell(self, work: Work, message: dict[str, Any], now: float) -> tuple[bool, float]:
        if message["kind"] == "started" or (work.epoch % PARTS and work.epoch < EPOCHS):
            return True, 0.0
        trial: Any = SimpleNamespace(trial_id=str(work.number))
        verdict = self._bracket.on_result(trial, work.epoch, message["metrics"]["val_auc"])
        return verdict == "CONTINUE" and work.epoch < EPOCHS, 0.0

    def lose(self, work: Work, now: float) -> None:
        raise NotImplementedError("no worker is lost here")


@dataclass(frozen=True)
class Found:
    """Of one search: passes trained, seconds of workers and of the clock, how many trials were trained to the end,
    validation and test AUC of the answer where it was best.
    """

    passes: float
    worker_seconds: float
    seconds: float
    whole: int
    value: float
    test: float


@cache
def curves(without: int) -> Curves:
    return Curves(read_curves(RECORDED), without)


def search(pruner: str, seed: int, without: int) -> Found:
    known = curves(without)
    points = known.draw(seed)
    if pruner == STOCK:
        return _found(known, StockDriver(points))
    document = {
        "space": SPACE,
        "seed": seed,
        "pruner": PRUNERS[pruner],
        "budget": {"trials": TRIALS, "epochs": EPOCHS},
        "first_points": points,
    }
    with driving(StudyConfig.parse(document), WORKERS) as (driver, _):
        return _found(known, driver)


def _found(known: Curves, driver: Driver) -> Found:
    cluster = Cluster(WORKERS, cold_start=0.0, warm_start=0.0, tracing=0.0, latency=0.0, ray=0.0)
    outcome = Simulation(cluster, known, driver).run()
    last = {known.place(work.parameters): epoch for work, epoch in outcome.courses.values()}
    seen = np.full(known.values.shape, -np.inf)
    for place, epoch in last.items():
        seen[place, :epoch] = known.values[place, :epoch]
    best = np.unravel_index(seen.argmax(), seen.shape)
    spent = sum(epoch * known.seconds(known.points[place], 1) for place, epoch in last.items())
    whole = sum(epoch == EPOCHS for epoch in last.values())
    return Found(sum(last.values()) / PARTS, spent, outcome.end, whole, float(seen[best]), float(known.tests[best]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--searches", type=int, default=300)
    parser.add_argument("--without", type=int, default=0, help="how many of the best configurations no search gets")
    asked = parser.parse_args()
    seeds = range(asked.searches)
    print(f"{'':24} passes  worker-s  seconds  whole  val AUC  test AUC  val beside Ray Tune's, test  (95 %)")
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        stock: list[Found] = []
        for pruner in (STOCK, *PRUNERS):
            found = list(pool.map(search, repeat(pruner), seeds, repeat(asked.without), chunksize=10))
            stock = stock or found
            print(f"{pruner:24} {row(found, stock)}", flush=True)


def row(found: list[Found], stock: list[Found]) -> str:
    """Means over searches, and differences seed by seed."""
    passes, worker, clock, whole = (
        np.mean([getattr(each, name) for each in found]) for name in ("passes", "worker_seconds", "seconds", "whole")
    )
    value, test = (np.mean([getattr(each, name) for each in found]) for name in ("value", "test"))
    gaps = []
    for name in ("value", "test"):
        gap = np.array([getattr(ours, name) - getattr(theirs, name) for ours, theirs in zip(found, stock, strict=True)])
        gaps.append(f"{gap.mean():+.4f} ± {1.96 * gap.std() / len(gap) ** 0.5:.4f}")
    return f"{passes:6.1f} {worker:9.0f} {clock:8.0f} {whole:6.1f} {value:8.3f} {test:9.3f}  {', '.join(gaps)}"


if __name__ == "__main__":
    main()

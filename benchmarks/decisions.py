"""What a suggestion and a report take as trials add up, in the study itself: Optuna, pruner and ledger, without Ray.

make bench-decisions                                  # to 10,000 trials on two workers that take turns
python benchmarks/decisions.py --trials 3000 --workers 1000
"""

import argparse
import heapq
import math
import random
import statistics
import tempfile
import time
from pathlib import Path

from search.config import StudyConfig
from search.events import SessionOpened
from search.ledger import Ledger
from search.study import Study
from search.trial_source import Report

SPACE = {
    "learning_rate": {"type": "float", "low": 1e-5, "high": 1e-2, "log": True},
    "batch_size": {"type": "choice", "values": [16, 32, 64]},
    "augmentation_strength": {"type": "float", "low": 0.0, "high": 1.0, "step": 0.25},
    "freeze_depth": {"type": "int", "low": 0, "high": 5},
}
SHOWN = (100, 300, 1_000, 3_000, 10_000)  # trials at which the last hundred are summed up


def value_of(parameters, epoch: int, generator: random.Random) -> float:
    """Some score with a best place, that gets better by epoch, and with noise."""
    far = abs(math.log10(parameters["learning_rate"]) + 3.5) / 3 + 0.05 * abs(parameters["freeze_depth"] - 2)
    return 1 - far - 0.3 / epoch + generator.gauss(0, 0.02)


class Stopwatch:
    """Milliseconds that a call took, each time."""

    def __init__(self):
        self.milliseconds: list[float] = []

    def __call__(self, call, *arguments):
        began = time.perf_counter()
        try:
            return call(*arguments)
        finally:
            self.milliseconds.append(1000 * (time.perf_counter() - began))

    def last(self, count: int) -> str:
        newest = sorted(self.milliseconds[-count:])
        return f"median {statistics.median(newest):.1f}, p99 {newest[int(0.99 * len(newest))]:.1f} ms"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--workers", type=int, default=2)
    asked = parser.parse_args()
    config = StudyConfig.parse({"space": SPACE, "budget": {"trials": asked.trials, "epochs": 9}})
    generator, asks, reports = random.Random(0), Stopwatch(), Stopwatch()
    with tempfile.TemporaryDirectory() as folder, Ledger(Path(folder) / "study.db") as ledger:
        ledger.append(SessionOpened("here", 0))
        study, idle, ended, queue = Study(config, ledger), asked.workers, 0, []
        while True:
            while idle and len(asks.milliseconds) < asked.trials:
                request = asks(study.ask)
                study.started(request.key, "worker")
                heapq.heappush(queue, (generator.random(), request.key, 1, request))
                idle -= 1
            if not queue:
                break
            now, key, epoch, request = heapq.heappop(queue)
            value = value_of(request.parameters, epoch, generator)
            if reports(study.report, key, Report(epoch, {"val_auc": value})) == "continue":
                heapq.heappush(queue, (now + generator.random(), key, epoch + 1, request))
                continue
            idle, ended = idle + 1, ended + 1
            if ended in SHOWN:
                print(f"{ended:6} trials: ask {asks.last(100)}; report {reports.last(300)}", flush=True)


if __name__ == "__main__":
    main()

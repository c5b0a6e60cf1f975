"""How far one driver carries: 10,000 trials on 1,000 virtual workers through the product's own sampler, pruner and
ledger, and where it would give way.

make simulate
python -m benchmarks.simulation.scale --trials 1000 --workers 100 --clock wall
"""

import argparse
import math
import random
import resource
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from benchmarks.simulation.cluster import Cluster, Outcome, Simulation
from benchmarks.simulation.costs import Cost, checkpoint_bytes
from benchmarks.simulation.driver import Measured, RealDriver, RecordedDriver, TimedLedger, Work
from search.config import StudyConfig
from search.events import SessionOpened
from search.sampling import derive_seed

SPACE = {
    "learning_rate": {"type": "float", "low": 1e-5, "high": 1e-2, "log": True},
    "batch_size": {"type": "choice", "values": [16, 32, 64]},
    "augmentation_strength": {"type": "float", "low": 0.0, "high": 1.0, "step": 0.25},
    "freeze_depth": {"type": "int", "low": 0, "high": 5},
}
FLUSHES = 0.0004  # seconds that a commit waits for a disk that is idle (median); added to processor seconds
GIGABIT = 1e9 / 8  # bytes per second
SHORTER = (1.0, 0.5, 0.25, 0.125, 0.0625)
WANTED = 0.95


@dataclass(frozen=True)
class Pretended:
    """Trials with a best place, that get better by epoch, with noise; seconds from the cost model."""

    cost: Cost = field(default_factory=Cost)

    def seconds(self, parameters: Mapping[str, Any], epoch: int) -> float:
        return self.cost.epoch_seconds(parameters)

    def metrics(self, parameters: Mapping[str, Any], seed: int, epoch: int) -> dict[str, float]:
        far = abs(math.log10(parameters["learning_rate"]) + 3.5) / 3 + 0.05 * abs(parameters["freeze_depth"] - 2)
        noise = random.Random(derive_seed(seed, epoch)).gauss(0, 0.02)
        return {"val_auc": 1 - far - 0.3 / epoch + noise}

    def checkpoint_bytes(self, parameters: Mapping[str, Any]) -> float:
        return checkpoint_bytes(parameters["freeze_depth"])


def simulate(config: StudyConfig, cluster: Cluster, trials: Any, folder: Path) -> tuple[Outcome, RealDriver, list[Any]]:
    """The real driver's decisions, in virtual time with nominal costs; also all trials as the ledger has them."""
    with TimedLedger(folder / "study.db") as ledger:
        ledger.append(SessionOpened("here", 0))
        driver = RealDriver(config, ledger, cluster.workers)
        outcome = Simulation(cluster, trials, driver, config.seed).run()
        return outcome, driver, ledger.history.search_trials()


def seconds_of(measured: Mapping[str, Measured], clock: str) -> dict[str, dict[tuple[int, int], float]]:
    """What each call takes of the driver's time."""
    if clock == "wall":
        return {kind: each.wall for kind, each in measured.items()}
    return {kind: {key: cpu + FLUSHES for key, cpu in each.cpu.items()} for kind, each in measured.items()}


def replay(courses: list[tuple[Work, int]], seconds: Any, cluster: Cluster, factor: float = 1.0) -> Outcome:
    """The same decisions once more, with what they were measured to take."""
    return Simulation(cluster, Pretended(Cost(factor=factor)), RecordedDriver(courses, seconds)).run()


def show_growth(measured: Mapping[str, Measured], trials: int) -> None:
    print("\nprocessor ms, median (p99) of the last hundred trials; `commit` is a part of each")
    print("  trials          ask       its commit      started        report      its commit")
    for shown in (n for n in (100, 300, 1_000, 3_000, 10_000) if n <= trials):
        among = range(shown - 100, shown)
        columns = [
            summed(values, among)
            for values in (
                measured["ask"].cpu,
                measured["ask"].commit,
                measured["started"].cpu,
                measured["epoch"].cpu,
                measured["epoch"].commit,
            )
        ]
        print(f"{shown:8}  " + "  ".join(f"{column:>13}" for column in columns))


def summed(values: Mapping[tuple[int, int], float], trials: range) -> str:
    newest = sorted(1000 * seconds for (number, _), seconds in values.items() if number in trials)
    return f"{statistics.median(newest):.2f} ({newest[int(0.99 * len(newest))]:.1f})"


def show_utilisation(courses: list[tuple[Work, int]], seconds: Any, cluster: Cluster) -> None:
    print("\nutilisation until the last trial is asked for, decisions as recorded, seconds as measured")
    print("  epochs, s   trial, s   with Ray's share   driver busy   tracing   without Ray's share   driver busy")
    for factor in SHORTER:
        ours = replay(courses, seconds, replace(cluster, ray=0.0), factor)
        whole = replay(courses, seconds, cluster, factor)
        spans = [end - begin for begin, end, _ in whole.epochs]
        trial = sum(spans) / len(courses)
        print(
            f"{min(spans):5.1f}–{max(spans):4.1f} {trial:10.1f} {whole.utilisation:18.1%} {busy(whole):13.0%}"
            f" {whole.tracing_share:9.1%} {ours.utilisation:21.1%} {busy(ours):13.0%}"
        )
    print(
        f"  bound: trials shorter than {shortest(courses, seconds, cluster):.0f} s on average keep fewer than 95 % busy"
    )
    print(f"  the same without tracing: {shortest(courses, seconds, replace(cluster, tracing=0.0)):.0f} s")


def shortest(courses: list[tuple[Work, int]], seconds: Any, cluster: Cluster) -> float:
    """Mean seconds of a trial's epochs at which utilisation crosses 95 %, by halving."""
    low, high = 2.0**-6, 2.0
    for _ in range(6):
        middle = math.sqrt(low * high)
        if replay(courses, seconds, cluster, middle).utilisation < WANTED:
            low = middle
        else:
            high = middle
    cost = Cost(factor=high)
    return sum(epochs * cost.epoch_seconds(work.parameters) for work, epochs in courses) / len(courses)


def busy(outcome: Outcome) -> float:
    return outcome.driver / outcome.end


def show_traffic(courses: list[tuple[Work, int]], seconds: Any, cluster: Cluster) -> None:
    shared = replay(courses, seconds, cluster)
    print(
        f"\ncheckpoints: {shared.bytes / 1e12:.2f} TB, {shared.bytes / shared.end / 1e6:,.0f} MB/s to the head", end=""
    )
    print(" where hosts do not share the run folder")
    print("  depth   MB per epoch   epoch, s (batch 32)   MB/s of 1,000 workers   workers at 1 and 10 Gbit/s")
    for depth in range(6):
        size = checkpoint_bytes(depth)
        took = Cost().epoch_seconds({"freeze_depth": depth, "batch_size": 32})
        carried = " ".join(f"{speed * GIGABIT * took / size:10,.0f}" for speed in (1, 10))
        print(f"{depth:7} {size / 1e6:14.1f} {took:21.1f} {1000 * size / took / 1e6:23,.0f} {carried}")
    for gigabits in (1, 10, 100):
        limited = replay(courses, seconds, replace(cluster, link=gigabits * GIGABIT))
        print(f"  utilisation when all of them pass a link of {gigabits:3} Gbit/s: {limited.utilisation:.1%}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--workers", type=int, default=1_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--loss-per-hour", type=float, default=0.0, help="of a worker; decisions only")
    parser.add_argument("--clock", choices=["processor", "wall"], default="processor", help="what the driver takes")
    asked = parser.parse_args()
    sys.stdout.reconfigure(line_buffering=True)
    budget = {"trials": asked.trials, "epochs": 9}
    config = StudyConfig.parse({"space": SPACE, "budget": budget, "seed": asked.seed})
    cluster = Cluster(asked.workers, loss_per_hour=asked.loss_per_hour)
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        outcome, driver, records = simulate(config, cluster, Pretended(), Path(folder))
        size = sum(path.stat().st_size for path in Path(folder).iterdir()) / 1e6
    took, used = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_SELF)
    processor = used.ru_utime + used.ru_stime
    print(f"{asked.trials} trials on {asked.workers} virtual workers, seed {asked.seed}: {took:.0f} s, ", end="")
    print(f"{processor:.0f} s of processor, ledger {size:.0f} MB, {outcome.end:,.0f} virtual seconds")
    print(f"  statuses {dict(Counter(record.status for record in records))}, epochs {len(outcome.epochs)}")
    show_growth(driver.measured, asked.trials)
    totals = {kind: sum(each.cpu.values()) for kind, each in driver.measured.items()}
    print("  in all, s: " + ", ".join(f"{kind} {seconds:.1f}" for kind, seconds in totals.items()))
    if asked.loss_per_hour:
        return
    courses = [outcome.courses[number] for number in range(asked.trials)]
    seconds = seconds_of(driver.measured, asked.clock)
    show_utilisation(courses, seconds, cluster)
    show_traffic(courses, seconds, cluster)
    print(f"\nall of it: {time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    main()

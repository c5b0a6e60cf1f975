"""Samplers and pruners on recorded curves: what the configuration they would name is short of the best, by what was
spent.

make compare                                                     # all settings, 20 seeds, eight workers and one
python -m benchmarks.simulation.compare --seeds 5 --only tpe/halving-3 --plot regret.png
"""

import argparse
import os
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import trim_mean

from benchmarks.simulation.cluster import Cluster, Outcome, Simulation
from benchmarks.simulation.driver import RealDriver, TimedLedger
from benchmarks.simulation.surrogate import Surrogate
from search.config import StudyConfig
from search.events import Event, SessionOpened
from search.history import TrialRecord

SPACE = {
    "learning_rate": {"type": "float", "low": 1e-5, "high": 1e-2, "log": True},
    "batch_size": {"type": "choice", "values": [16, 32, 64]},
    "augmentation_strength": {"type": "float", "low": 0.0, "high": 1.0, "step": 0.25},
    "freeze_depth": {"type": "int", "low": 0, "high": 5},
}
EPOCHS = 216  # that 24 trials of nine epochs take
SHOWN = (0.25, 0.5, 1.0)  # of all epochs
RESAMPLES = 2000
_NONE, _MEDIAN = {"name": "none"}, {"name": "median"}


def _halving(factor: int, least: int = 1) -> dict[str, Any]:
    return {"name": "successive_halving", "reduction_factor": factor, "min_epochs": least}


def _promotion(factor: int, variant: str = "promotion") -> dict[str, Any]:
    return {**_halving(factor), "variant": variant}


def _hyperband(factor: int) -> dict[str, Any]:
    return {"name": "hyperband", "reduction_factor": factor}


SETTINGS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "random/none": ({"name": "random"}, _NONE),
    "random/halving-3": ({"name": "random"}, _halving(3)),
    "random/promotion-3": ({"name": "random"}, _promotion(3)),
    "tpe/none": ({}, _NONE),
    "tpe/median": ({}, _MEDIAN),
    "tpe/hyperband-3": ({}, _hyperband(3)),
    "tpe/halving-2": ({}, _halving(2)),
    "tpe/halving-3": ({}, _halving(3)),
    "tpe/promotion-3": ({}, _promotion(3)),
    "tpe/synchronous-3": ({}, _promotion(3, "synchronous")),
    "tpe/halving-4": ({}, _halving(4)),
    "tpe/halving-3, from 2": ({}, _halving(3, 2)),
    "tpe/halving-3, from 3": ({}, _halving(3, 3)),
    "tpe/halving-2, from 3": ({}, _halving(2, 3)),
    "tpe, 5 at first/halving-3": ({"startup_trials": 5}, _halving(3)),
    "tpe, 20 at first/halving-3": ({"startup_trials": 20}, _halving(3)),
    "tpe, one by one/halving-3": ({"multivariate": False}, _halving(3)),
    "tpe, no liar/halving-3": ({"constant_liar": False}, _halving(3)),
    "cmaes/none": ({"name": "cmaes"}, _NONE),
    "cmaes/halving-3": ({"name": "cmaes"}, _halving(3)),
}


class Unwritten(TimedLedger):
    """Events count at once: what they cost is measured elsewhere."""

    def append(self, *events: Event) -> None:
        for event in events:
            self.history.apply(0.0, event)


@contextmanager
def driving(config: StudyConfig, workers: int) -> Iterator[tuple[RealDriver, Unwritten]]:
    """The product's driver of a new study, and its ledger, of which nothing stays."""
    with tempfile.TemporaryDirectory() as folder, Unwritten(Path(folder) / "study.db") as ledger:
        ledger.append(SessionOpened("here", 0))
        yield RealDriver(config, ledger, workers), ledger


@dataclass(frozen=True)
class Job:
    setting: str
    workers: int
    seed: int
    luck: float
    epochs: float = EPOCHS
    trials: int = 1_000_000


@dataclass(frozen=True)
class Course:
    """One search: whenever a worker left a trial, epochs and worker-seconds spent so far, and the regret of the trial
    that would be named then; shape (times,) each.

    Attributes:
        trials: That were asked for.
        suggested: Mean regret of the suggestions in the second half: the sampler's part, without the luck of naming.
    """

    epochs: np.ndarray
    seconds: np.ndarray
    regret: np.ndarray
    suggested: float = 0.0
    trials: int = 0

    def at(self, spent: Sequence[float], axis: str = "epochs") -> np.ndarray:
        """The regret when so much was spent; the first trial's before any has ended."""
        places = np.searchsorted(getattr(self, axis), spent, side="right") - 1
        return self.regret[np.maximum(places, 0)]


@cache
def surrogate(luck: float) -> Surrogate:
    return Surrogate(luck=luck)


def run(job: Job) -> tuple[Outcome, list[TrialRecord]]:
    """One search in virtual time: what became of it, and its trials by number."""
    sampler, pruner = SETTINGS[job.setting]
    budget = {"trials": job.trials, "epochs": surrogate(job.luck).epochs}
    config = StudyConfig.parse(
        {"space": SPACE, "seed": job.seed, "sampler": sampler, "pruner": pruner, "budget": budget}
    )
    cluster = Cluster(job.workers, cold_start=0.0, warm_start=0.1, tracing=0.0, ray=0.0)
    with driving(config, job.workers) as (driver, ledger):
        outcome = Simulation(cluster, surrogate(job.luck), driver, job.seed).run(job.epochs)
        return outcome, ledger.history.search_trials()


def search(job: Job) -> Course:
    """What was named, whenever a trial of one search had ended."""
    trials = surrogate(job.luck)
    outcome, records = run(job)
    named, regret, least = None, [], (False, -np.inf)
    for _, _, number, last in outcome.ends:  # a completed trial is named before any other one, as the product does
        record = records[number]
        best = max(value for epoch, value in record.values("val_auc").items() if epoch <= last)
        score = (record.status == "completed" and last == len(record.epochs), best)
        if score > least:
            named, least = record, score
        regret.append(trials.optimum - trials.value(named.parameters))
    epochs, seconds, _, _ = zip(*outcome.ends, strict=True)
    later = [trials.optimum - trials.value(record.parameters) for record in records[len(records) // 2 :]]
    return Course(
        np.array(epochs), job.workers * np.array(seconds), np.array(regret), float(np.mean(later)), len(records)
    )


def middle_mean(values: np.ndarray) -> tuple[float, float, float]:
    """Mean of the middle half over seeds, with its 95 % bootstrap interval over seeds (as rliable does)."""
    drawn = np.random.default_rng(0).choice(values, (RESAMPLES, len(values)))
    low, high = np.quantile(trim_mean(drawn, 0.25, axis=1), [0.025, 0.975])
    return float(trim_mean(values, 0.25)), float(low), float(high)


def show(courses: dict[str, list[Course]], workers: int, shown: Sequence[int]) -> None:
    budget = np.median([course.seconds[-1] for course in courses.get("tpe/none", next(iter(courses.values())))])
    print(f"\n{workers} worker(s): regret of the trial that would be named, mean of the middle half [95 %]")
    heads = [f"{epochs} epochs" for epochs in shown] + [
        f"{budget / 2:.0f} worker-s",
        f"{budget:.0f} worker-s",
        "second half",
        "epochs",
        "trials",
    ]
    print(f"{'':28}" + "".join(f"{head:>24}" for head in heads))
    for setting, each in courses.items():
        table = np.array(
            [[*course.at(shown), *course.at([budget / 2, budget], "seconds"), course.suggested] for course in each]
        )
        cells = ["{:.3f} [{:.3f}, {:.3f}]".format(*middle_mean(column)) for column in table.T]
        cells += [
            f"{np.median([course.epochs[-1] for course in each]):.0f}",
            f"{np.median([course.trials for course in each]):.0f}",
        ]
        print(f"{setting:28}" + "".join(f"{cell:>24}" for cell in cells), flush=True)


def paired(courses: dict[str, list[Course]], shown: Sequence[int], against: str = "tpe/halving-3") -> None:
    """Differences to the default over the same seeds: below zero is better than it."""
    if against not in courses:
        return
    print(f"difference to {against} over the same seeds, mean over {shown} epochs [95 %]")
    theirs = np.array([course.at(shown) for course in courses[against]]).mean(axis=1)
    for setting, each in courses.items():
        gap = np.array([course.at(shown) for course in each]).mean(axis=1) - theirs
        drawn = np.random.default_rng(0).choice(gap, (RESAMPLES, len(gap))).mean(axis=1)
        low, high = np.quantile(drawn, [0.025, 0.975])
        print(f"{setting:28} {gap.mean():+.3f} [{low:+.3f}, {high:+.3f}]")


def draw(courses: dict[str, list[Course]], workers: int, path: Path) -> None:
    import matplotlib.pyplot as plt

    spent = np.arange(9, 1 + max(course.epochs[-1] for each in courses.values() for course in each), 3)
    figure, (left, right) = plt.subplots(1, 2, figsize=(12, 6), sharey=True, layout="constrained")
    left.set_prop_cycle(color=plt.get_cmap("tab20").colors)
    right.set_prop_cycle(color=plt.get_cmap("tab20").colors)
    for setting, each in courses.items():
        bold = 2.5 if setting == "tpe/halving-3" else 1
        left.plot(spent, _curve(each, spent, "epochs"), lw=bold, label=setting)
        seconds = np.linspace(10, np.median([course.seconds[-1] for course in each]), 60)
        right.plot(seconds, _curve(each, seconds, "seconds"), lw=bold)
    left.set(xlabel="epochs", ylabel="regret (val AUC), mean of the middle half", title=f"{workers} worker(s)")
    right.set(xlabel="worker-seconds")
    figure.legend(loc="outside lower center", ncols=5, fontsize=8)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def _curve(courses: Sequence[Course], spent: np.ndarray, axis: str) -> np.ndarray:
    return trim_mean([course.at(spent, axis) for course in courses], 0.25, axis=0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--workers", type=int, nargs="+", default=[8, 1])
    parser.add_argument("--epochs", type=int, default=EPOCHS, help="that a search may spend")
    parser.add_argument("--trials", type=int, default=Job.trials, help="that a search may ask for")
    parser.add_argument("--luck", type=float, default=1.0, help="share of the recorded scatter that trials have")
    parser.add_argument("--only", nargs="*", choices=SETTINGS, help="these settings")
    parser.add_argument("--plot", type=Path, help="a PNG; the number of workers is put before its ending")
    asked = parser.parse_args()
    model = surrogate(asked.luck)
    shares = SHOWN if asked.trials == Job.trials else (1.0,)  # of searches that end by themselves only the end is shown
    trust, shown = model.trust, [round(share * asked.epochs) for share in shares]
    print(f"surrogate, out of fold: error {trust.error:.3f} per epoch, {trust.error_of_best:.3f} of the best; ", end="")
    print(f"rank correlation {trust.rank:.2f} and {trust.rank_of_best:.2f}; best value {model.optimum:.3f}")
    with ProcessPoolExecutor(max_workers=os.cpu_count()) as pool:
        for workers in asked.workers:
            names = asked.only or list(SETTINGS)
            jobs = [
                Job(name, workers, seed, asked.luck, asked.epochs, asked.trials)
                for name in names
                for seed in range(asked.seeds)
            ]
            done = list(pool.map(search, jobs, chunksize=asked.seeds))
            courses = {name: done[place * asked.seeds :][: asked.seeds] for place, name in enumerate(names)}
            show(courses, workers, shown)
            paired(courses, shown)
            if asked.plot:
                draw(courses, workers, asked.plot.with_stem(f"{asked.plot.stem}_{workers}"))


if __name__ == "__main__":
    main()

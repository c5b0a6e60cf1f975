"""What a trial costs beside its training: no-op trials through Thawline and through stock Ray Tune with OptunaSearch.

make bench-driver                                       # 100 and 1,000 trials each, three rounds, in turn
python benchmarks/driver.py --trials 10000 --rounds 1 --limit 3600

A run that takes longer than the limit is ended, and counts as "more than" that.
"""

import argparse
import math
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.findings import setting, spread, verdict
from trainable.children import adopt_orphans, end_children

GOAL, GOAL_TRIALS = 0.8, 1_000
SECONDS_OF_RAY = 300  # that it may take to start and to stop
EPOCHS = 1
SPACE = {"learning_rate": (1e-5, 1e-2), "batch_size": [16, 32, 64], "augmentation_strength": (0.0, 1.0, 0.25)}


@dataclass(frozen=True)
class Run:
    """Seconds that a run took; where it was ended before it was whole, seconds that it took at least."""

    seconds: float
    whole: bool = True

    def told(self, trials: int) -> str:
        each = f"{1000 * self.seconds / trials:.1f} ms per trial"
        return each if self.whole else f"more than {self.seconds:g} s, more than {each}"


def ratio_bounds(ours: Run, theirs: Run) -> tuple[float, float]:
    """Between what the ratio of their whole lengths must lie; equal where both ran to their end."""
    ratio = ours.seconds / theirs.seconds
    return (ratio if theirs.whole else 0.0), (ratio if ours.whole else math.inf)


def told_bounds(low: float, high: float) -> str:
    """A ratio in words."""
    if low == high:
        return f"{low:.2f}"
    if low == 0.0 and high == math.inf:
        return "not known"
    if high == math.inf:
        return f"more than {low:.2f}"
    return f"less than {high:.2f}" if low == 0.0 else f"between {low:.2f} and {high:.2f}"


def thawline(trials: int, limit: float) -> float:
    """Seconds from the first suggestion to the last verdict, Ray running already."""
    from ray import tune

    from search.cluster import connect
    from search.config import StudyConfig
    from search.events import SessionOpened
    from search.ledger import Ledger
    from search.study import Study
    from search.tune_bridge import MESSAGE, run_trials

    class NoOperation(tune.Trainable):
        def setup(self, config):
            self.steps = 0

        def reset_config(self, new_config):
            self.steps = 0
            return True

        def step(self):
            self.steps += 1
            if self.steps == 1:
                return {MESSAGE: [{"kind": "started", "worker": "here"}]}
            metrics = {"val_auc": self.config["trial"]["parameters"]["learning_rate"]}
            return {MESSAGE: [{"kind": "epoch", "epoch": 1, "metrics": metrics, "seconds": {}, "last": True}]}

    low, high = SPACE["learning_rate"]
    config = StudyConfig.parse(
        {
            "space": {
                "learning_rate": {"type": "float", "low": low, "high": high, "log": True},
                "batch_size": {"type": "choice", "values": SPACE["batch_size"]},
                "augmentation_strength": {"type": "float", "low": 0.0, "high": 1.0, "step": 0.25},
                "freeze_depth": {"type": "int", "low": 0, "high": 5},
            },
            "budget": {"trials": trials, "epochs": EPOCHS},
        }
    )
    with tempfile.TemporaryDirectory() as folder, connect(), Ledger(Path(folder) / "study.db") as ledger:
        ledger.append(SessionOpened("here", 0))
        began = begin(limit)
        run_trials(Study(config, ledger), NoOperation, {}, {"CPU": 1, "GPU": 0}, 2)
        seconds = time.perf_counter() - began
        signal.setitimer(signal.ITIMER_REAL, 0)
        assert sum(trial.ended for trial in ledger.history.search_trials()) == trials
    return seconds


def stock(trials: int, limit: float) -> float:
    """The same through a class trainable, `reuse_actors`, OptunaSearch and ASHA, as Ray's documentation shows."""
    import ray
    from ray import tune
    from ray.tune.schedulers import ASHAScheduler
    from ray.tune.search.optuna import OptunaSearch

    class NoOperation(tune.Trainable):
        def setup(self, config):
            pass

        def reset_config(self, new_config):
            return True

        def step(self):
            return {"val_auc": self.config["learning_rate"], "done": True}

        def save_checkpoint(self, folder):
            return {}

    space = {
        "learning_rate": tune.loguniform(*SPACE["learning_rate"]),
        "batch_size": tune.choice(SPACE["batch_size"]),
        "augmentation_strength": tune.quniform(*SPACE["augmentation_strength"]),
        "freeze_depth": tune.randint(0, 6),
    }
    with tempfile.TemporaryDirectory() as folder:
        # `local`: never a Ray that happens to run here.
        ray.init(address="local", include_dashboard=False, log_to_driver=False, configure_logging=False)
        began = begin(limit)
        results = tune.Tuner(
            tune.with_resources(NoOperation, {"cpu": 1}),
            param_space=space,
            tune_config=tune.TuneConfig(
                metric="val_auc",
                mode="max",
                num_samples=trials,
                search_alg=OptunaSearch(),
                scheduler=ASHAScheduler(max_t=9),
                max_concurrent_trials=2,
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(storage_path=folder, name="stock", verbose=0),
        ).fit()
        seconds = time.perf_counter() - began
        signal.setitimer(signal.ITIMER_REAL, 0)
        assert len(results) == trials
        assert not results.errors
        ray.shutdown()
    return seconds


def begin(limit: float) -> float:
    """The time; this process is ended by SIGALRM when so many seconds have passed."""
    signal.setitimer(signal.ITIMER_REAL, limit)
    return time.perf_counter()


SYSTEMS = {"thawline": thawline, "stock": stock}


def run(name: str, trials: int, limit: float) -> Run:
    """One run in a process of its own, with a folder of its own for what Ray leaves behind."""
    command = [sys.executable, __file__, "--one", name, "--trials", str(trials), "--limit", str(limit)]
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        environment = os.environ | {"TMPDIR": folder}
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, check=False, env=environment, timeout=limit + SECONDS_OF_RAY
            )
        finally:
            end_children()  # Ray's processes, when their driver was ended
    if done.returncode == -signal.SIGALRM:
        return Run(limit, whole=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    return Run(float(done.stdout.split("SECONDS ")[1]))


def measure(trials: int, rounds: int, limit: float) -> None:
    """Both systems in turn, round by round, and what follows from it."""
    bounds, runs = [], {name: [] for name in SYSTEMS}
    for round_number in range(1, rounds + 1):
        for name in SYSTEMS:
            runs[name].append(run(name, trials, limit))
            print(f"{trials} trials, round {round_number}: {name} {runs[name][-1].told(trials)}", flush=True)
        bounds.append(ratio_bounds(runs["thawline"][-1], runs["stock"][-1]))
    for name, all_rounds in runs.items():
        each = [1000 * one.seconds / trials for one in all_rounds]
        short = "" if all(one.whole for one in all_rounds) else "; at least, because runs were ended at the limit"
        print(f"{trials} trials: {name} median {spread(each, 1)} ms per trial{short}")
    print(f"{trials} trials: ratio thawline / stock {summed_up(bounds, trials)}", flush=True)


def summed_up(bounds: Sequence[tuple[float, float]], trials: int) -> str:
    """The ratio round by round and its median, against the goal at the size that it was set for."""
    low, high = (statistics.median(side) for side in zip(*bounds, strict=True))
    told = f"{', '.join(told_bounds(*each) for each in bounds)}; median {told_bounds(low, high)}"
    if trials != GOAL_TRIALS:
        return told
    known = high <= GOAL or low > GOAL
    return f"{told}; {verdict(f'<= {GOAL}', high <= GOAL) if known else f'goal <= {GOAL}: not known'}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, nargs="+", default=[100, GOAL_TRIALS])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--limit", type=float, default=1800.0, help="seconds after which a run is ended")
    parser.add_argument("--one", choices=SYSTEMS, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.one:
        print(f"SECONDS {SYSTEMS[asked.one](asked.trials[0], asked.limit)}")
        return
    adopt_orphans()
    print(setting("ray", "optuna"), flush=True)
    print(f"{asked.rounds} rounds in turn, two trials at a time, at most {asked.limit:g} s a run", flush=True)
    for trials in asked.trials:
        measure(trials, asked.rounds, asked.limit)


if __name__ == "__main__":
    main()

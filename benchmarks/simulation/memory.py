"""What TPE loses by modelling only so many ended trials: long searches with and without the limit, on recorded curves.

python -m benchmarks.simulation.memory --trials 2000 --limit 1000 --seeds 3
"""

import argparse
import math
import os
import time
from concurrent.futures import ProcessPoolExecutor

import numpy as np

from benchmarks.simulation.compare import Job, middle_mean, run, surrogate
from search import tpe

WORKERS = 20


def searched(asked: tuple[int, int, int]) -> tuple[float, float, float]:
    """Mean regret of the last quarter's suggestions, regret of the named trial, and seconds of processor; for a limit,
    a number of trials and a seed.
    """
    tpe.MODELLED, trials, seed = asked
    began = time.process_time()
    _, records = run(Job("tpe/halving-3", WORKERS, seed, 1.0, math.inf, trials))
    spent = time.process_time() - began
    model = surrogate(1.0)
    regrets = [model.optimum - model.value(record.parameters) for record in records]
    completed = [record for record in records if record.status == "completed"]
    named = max(completed, key=lambda record: max(record.values("val_auc").values()))
    return float(np.mean(regrets[-trials // 4 :])), model.optimum - model.value(named.parameters), spent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=2000)
    parser.add_argument("--limit", type=int, default=tpe.MODELLED)
    parser.add_argument("--seeds", type=int, default=3)
    asked = parser.parse_args()
    jobs = [(limit, asked.trials, seed) for seed in range(asked.seeds) for limit in (asked.limit, 10**9)]
    with ProcessPoolExecutor(max_workers=os.cpu_count()) as pool:
        done = np.array(list(pool.map(searched, jobs))).reshape(asked.seeds, 2, 3)
    print(f"{asked.trials} trials, {WORKERS} workers, {asked.seeds} seeds: mean of the middle half [95 %]")
    for place, name in enumerate((f"the newest {asked.limit} and the best", "all")):
        last, named = ("{:.3f} [{:.3f}, {:.3f}]".format(*middle_mean(done[:, place, column])) for column in (0, 1))
        print(
            f"{name:28} last quarter's suggestions {last}, named {named}, {done[:, place, 2].mean():.0f} s of processor"
        )
    gap = done[:, 0, 0] - done[:, 1, 0]
    print(f"difference of the last quarter, seed by seed: {', '.join(f'{each:+.3f}' for each in gap)}")


if __name__ == "__main__":
    main()

"""Whether a worker grows: memory of its own over a hundred real trials, ResNet50 at 32 px on drawn images.

make bench-memory                                        # 100 trials
python benchmarks/memory.py --trials 20 --images 48

One process runs the trials as a Ray actor would, without Ray. It is warm when every depth has met every batch size, for
each of which oneDNN prepares kernels of its own: one trial each, in an order that is drawn. Then come `--trials` more,
with depth, batch size, augmentation strength, learning rate and one or two epochs drawn for each; these may add 5 %.
"""

import argparse
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

from benchmarks.findings import setting, verdict

GOAL = 0.05
SIZE = 32
DEPTHS, BATCH_SIZES = range(6), (16, 32, 64)
WARM = len(DEPTHS) * len(BATCH_SIZES)
MEGA = 1e6


def warming_trials(seed: int) -> list[dict[str, Any]]:
    """Every depth with every batch size, in an order that is drawn."""
    pairs = list(product(DEPTHS, BATCH_SIZES))
    random.Random(seed).shuffle(pairs)
    return [_trial(number, depth, batch, random.Random(number)) for number, (depth, batch) in enumerate(pairs)]


def draw_trials(count: int, seed: int) -> list[dict[str, Any]]:
    """What each trial is told."""
    draw = random.Random(seed)
    return [_trial(WARM + number, draw.choice(DEPTHS), draw.choice(BATCH_SIZES), draw) for number in range(count)]


def _trial(number: int, depth: int, batch_size: int, draw: random.Random) -> dict[str, Any]:
    from benchmarks.worker import request

    return request(
        number,
        draw.randint(1, 2),
        freeze_depth=depth,
        batch_size=batch_size,
        augmentation_strength=draw.choice([0.0, 0.25, 0.5, 0.75, 1.0]),
        learning_rate=10 ** draw.uniform(-5, -3),
    )


def run_trials(folder: Path, trials: Sequence[dict[str, Any]]) -> None:
    """Run them one after the other in this process, and print what memory it has meanwhile."""
    from benchmarks.worker import Worker
    from trainable.memory import fair_share, own_bytes
    from trainable.trial import Wear

    worker, own, failed, reason = Worker(folder), [], 0, None
    for count, trial in enumerate(trials, start=1):
        failed += worker.run(trial)[-1]["kind"] == "failed"
        own.append(own_bytes())
        if count in (1, WARM, len(trials)) or count % max(1, len(trials) // 20) == 0:
            print(f"after {count:4} trials: {own[-1] / MEGA:,.0f} MB", flush=True)
        reason = Wear(count).reason(own[-1], fair_share(worker.study["cpus"]))
        if reason:  # asked for another trial, it would end this process
            print(f"after {count} trials the worker would make room for a fresh one: {reason}")
            break
    print(f"{failed} of {len(own)} trials failed")
    tell(own)


def tell(own: Sequence[int]) -> None:
    """Growth against the goal."""
    if len(own) <= WARM:
        print("growth cannot be told, because trials must go on after the worker is warm; give more --trials")
        return
    first, last, most = (value / MEGA for value in (own[WARM - 1], own[-1], max(own[WARM - 1 :])))
    print(f"warm after {WARM} trials: {first:,.0f} MB; after the last {last:,.0f}, at most {most:,.0f} MB")
    grown = last / first - 1
    print(f"growth {100 * grown:+.1f} %; {verdict(f'<= {GOAL:.0%}', grown <= GOAL)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--trials",
        type=int,
        default=100,
        help="after the warming ones; at most 500 in all, after which a worker ends by itself",
    )
    parser.add_argument("--images", type=int, default=96, help="of each class, at least 48; 70 %% are trained on")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--weights", type=Path, help="of ResNet50 without its top; default: random ones")
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.folder:
        run_trials(asked.folder, [*warming_trials(asked.seed), *draw_trials(asked.trials, asked.seed)])
        return
    print(setting("tensorflow", "keras", "ray"), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        from benchmarks.worker import make_study

        make_study(Path(folder), asked.images, SIZE, asked.threads, asked.weights)
        options = ["--folder", folder, "--trials", str(asked.trials), "--seed", str(asked.seed)]
        subprocess.run([sys.executable, __file__, *options], check=True)


if __name__ == "__main__":
    main()

"""Whether a worker grows: its resident memory over a hundred real trials, ResNet50 at 32 px on drawn images.

make bench-memory                                        # 100 trials
python benchmarks/memory.py --trials 20 --images 48

One process runs the trials as a Ray actor would, without Ray. Depth, batch size, augmentation strength, learning rate
and one or two epochs are drawn for each; growth counts from where every depth was seen.
"""

import argparse
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.findings import setting, verdict

GOAL = 0.05
SIZE = 32
DEPTHS = range(6)
MEGA = 1e6


def draw_trials(count: int, seed: int) -> list[dict[str, Any]]:
    """What each trial is told."""
    from benchmarks.worker import request

    draw = random.Random(seed)
    return [
        request(
            number,
            draw.randint(1, 2),
            freeze_depth=draw.choice(DEPTHS),
            batch_size=draw.choice([16, 32, 64]),
            augmentation_strength=draw.choice([0.0, 0.25, 0.5, 0.75, 1.0]),
            learning_rate=10 ** draw.uniform(-5, -3),
        )
        for number in range(count)
    ]


def warm_after(depths: Sequence[int]) -> int | None:
    """After how many trials every depth was seen; None: not all of them were."""
    seen: set[int] = set()
    for count, depth in enumerate(depths, start=1):
        seen.add(depth)
        if len(seen) == len(DEPTHS):
            return count
    return None


def growth(resident: Sequence[int], warm: int) -> float:
    """Growth from the memory after the first `warm` trials to that after the last, as a share of the former."""
    return resident[-1] / resident[warm - 1] - 1


def run_trials(folder: Path, trials: Sequence[dict[str, Any]]) -> None:
    """Run them one after the other in this process, and print what memory it has meanwhile."""
    from benchmarks.worker import Worker
    from trainable.trial import Wear, fair_share, resident_bytes

    worker, resident, failed, reason = Worker(folder), [], 0, None
    warm = warm_after([trial["parameters"]["freeze_depth"] for trial in trials])
    for count, trial in enumerate(trials, start=1):
        failed += worker.run(trial)[-1]["kind"] == "failed"
        resident.append(resident_bytes())
        if count in (1, warm, len(trials)) or count % max(1, len(trials) // 20) == 0:
            print(f"after {count:4} trials: {resident[-1] / MEGA:,.0f} MB", flush=True)
        reason = Wear(count).reason(resident[-1], fair_share(worker.study["cpus"]))
        if reason:  # asked for another trial, it would end this process
            print(f"after {count} trials the worker would make room for a fresh one: {reason}")
            break
    print(f"{failed} of {len(resident)} trials failed")
    tell(resident, warm)


def tell(resident: Sequence[int], warm: int | None) -> None:
    """Growth against the goal."""
    if warm is None or warm >= len(resident):
        print("growth cannot be told, because trials must go on after every depth was seen; give more --trials")
        return
    first, last, most = (value / MEGA for value in (resident[warm - 1], resident[-1], max(resident[warm - 1 :])))
    print(
        f"every depth was seen after {warm} trials: {first:,.0f} MB; after the last {last:,.0f}, at most {most:,.0f} MB"
    )
    grown = growth(resident, warm)
    print(f"growth {100 * grown:+.1f} %; {verdict(f'<= {GOAL:.0%}', grown <= GOAL)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=100, help="at most 500, after which a worker ends by itself")
    parser.add_argument("--images", type=int, default=96, help="of each class, at least 48; 70 %% are trained on")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--weights", type=Path, help="of ResNet50 without its top; default: random ones")
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.folder:
        run_trials(asked.folder, draw_trials(asked.trials, asked.seed))
        return
    print(setting("tensorflow", "keras", "ray"), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        from benchmarks.worker import make_study

        make_study(Path(folder), asked.images, SIZE, asked.threads, asked.weights)
        options = ["--folder", folder, "--trials", str(asked.trials), "--seed", str(asked.seed)]
        subprocess.run([sys.executable, __file__, *options], check=True)


if __name__ == "__main__":
    main()

"""Two workers with one thread each beside one worker with two, and how much of a worker's time is steps.

make bench-packing                                        # ten minutes
python benchmarks/packing.py --images 128 --depths 0 4

Real trials of ResNet50 at 64 px on drawn images, batches of 16, nothing kept. Each way has processes of its own, by
turns. For every freeze depth a worker runs a trial of one epoch, which makes it warm, and then the one that counts;
workers that run side by side begin that one together.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.findings import setting, spread, verdict

SIZE, EPOCHS = 64, 2
WAYS = {"one worker, two threads": (1, 2), "two workers, one thread each": (2, 1)}
STEADY = 0.95

Measured = dict[int, list[dict[str, float]]]  # by depth, of each worker: seconds of an epoch, share that is steps


def work(folder: Path, threads: int, depths: list[int]) -> None:
    """Run the trials in this process: say `warm`, wait for a line, run the one that counts, say what it took."""
    from benchmarks.worker import Worker, request

    worker = Worker(folder)
    worker.study |= {"cpus": threads, "checkpoint_every": EPOCHS + 1}  # none is written, so no round takes up another's
    for number, depth in enumerate(depths):
        chosen = {"freeze_depth": depth, "batch_size": 16, "augmentation_strength": 0.5, "learning_rate": 1e-5}
        _succeeded(worker.run(request(2 * number, 1, **chosen)))
        print("warm", flush=True)
        sys.stdin.readline()
        began = time.perf_counter()
        messages = worker.run(request(2 * number + 1, EPOCHS, **chosen))
        took = time.perf_counter() - began
        _succeeded(messages)
        spent = [message["seconds"] for message in messages if message["kind"] == "epoch"]
        steps = sum(each["step"] + each["validation"] for each in spent)
        print(json.dumps({"epoch": took / EPOCHS, "share": steps / took}), flush=True)


def _succeeded(messages: list[dict[str, Any]]) -> None:
    if messages[-1]["kind"] == "failed":
        raise RuntimeError(messages[-1]["reason"])


def measure(folders: list[Path], threads: int, depths: list[int]) -> Measured:
    """Workers side by side, one for each folder."""
    command = [sys.executable, __file__, "--threads", str(threads), "--depths", *map(str, depths), "--folder"]
    pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    workers = [subprocess.Popen([*command, str(folder)], **pipes) for folder in folders]
    found: Measured = {}
    try:
        for depth in depths:
            for worker in workers:
                if worker.stdout.readline() != "warm\n":
                    raise RuntimeError("a worker ended; what it said is above")
            for worker in workers:
                worker.stdin.write("\n")
                worker.stdin.flush()
            found[depth] = [json.loads(worker.stdout.readline()) for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
            worker.communicate()
    return found


def tell(rounds: list[dict[str, Measured]], depths: list[int]) -> None:
    """Epochs an hour of both ways and their ratio; the share of steps against its goal."""
    for depth in depths:
        speeds = {way: [sum(3600 / each["epoch"] for each in found[way][depth]) for found in rounds] for way in WAYS}
        one, two = speeds.values()
        ratio = spread([two[turn] / one[turn] for turn in range(len(rounds))])
        told = ", ".join(f"{way} {spread(speed, 0)}" for way, speed in speeds.items())
        shares = [each["share"] for found in rounds for each in found["two workers, one thread each"][depth]]
        print(f"depth {depth}: epochs an hour: {told}; ratio {ratio}")
        print(
            f"depth {depth}: steps and validation are {spread(shares)} of a one-thread worker's time; "
            f"{verdict(f'>= {STEADY}', statistics.median(shares) >= STEADY)}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=380, help="of each class, at least 48; 70 %% are trained on")
    parser.add_argument("--depths", type=int, nargs="+", default=[0, 2, 4])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--weights", type=Path, help="of ResNet50 without its top; default: random ones")
    parser.add_argument("--threads", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.folder:
        work(asked.folder, asked.threads, asked.depths)
        return
    print(setting("tensorflow", "keras", "ray"), flush=True)
    from benchmarks.worker import make_study

    rounds = []
    with tempfile.TemporaryDirectory() as made:
        folders = [Path(made) / name for name in ("first", "second")]
        for folder in folders:
            folder.mkdir()
            make_study(folder, asked.images, SIZE, 1, asked.weights, features="off")
        for turn in range(asked.rounds):
            rounds.append(
                {way: measure(folders[:count], threads, asked.depths) for way, (count, threads) in WAYS.items()}
            )
            print(f"round {turn + 1} of {asked.rounds} is done", flush=True)
    tell(rounds, asked.depths)


if __name__ == "__main__":
    main()

"""What a trial's start costs, by freeze depth: in a fresh process, on a warm worker, and with Keras' own `fit`.

make bench-start                                # ResNet50 at 64 px, six depths, three rounds: a quarter of an hour
python benchmarks/start.py --rounds 1 --depths 5 4

Cold is from the start of a process to the end of its first training step. Warm is from a configuration's receipt to the
end of the first step, its images included, less an ordinary step; on a worker that has run this depth before, or only
another. The worker is the product's own, without Ray (`make bench-driver` tells what Ray adds), and keeps no features:
computing them is training, not start.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from benchmarks.findings import setting, spread, verdict

WARM_SECONDS = 0.3
STOCK_SECONDS = (17, 30)
SIZE = 64  # that of the task whose `fit` is compared
CHOSEN = {"learning_rate": 1e-4, "batch_size": 16, "augmentation_strength": 0.5}
SPLIT = ("Python, Ray", "TensorFlow, Keras", "backbone", "trace, first step")


class Watched:
    """When each call of a method began and ended, from now on."""

    def __init__(self, owner: type, name: str, finish: Callable[[Any], Any] = lambda result: None):
        self.began: list[float] = []
        self.ended: list[float] = []
        method = getattr(owner, name)

        def watched(*given: Any, **named: Any) -> Any:
            self.began.append(time.monotonic())
            result = method(*given, **named)
            finish(result)  # a GPU may still be computing it
            self.ended.append(time.monotonic())
            return result

        setattr(owner, name, watched)


def start_seconds(received: float, began: Sequence[float], ended: Sequence[float]) -> tuple[float, float]:
    """Seconds from the receipt of a trial until its first step has its images, and to its end less an ordinary step.

    Args:
        received: When the trial came.
        began: When each of its steps began.
        ended: When each ended; at least two. From end to end it is an ordinary step with its inputs.
    """
    ordinary = statistics.median(after - before for before, after in pairwise(ended))
    return began[0] - received, ended[0] - received - ordinary


def thawline(began: float, folder: Path, depths: Sequence[int], threads: int) -> dict[str, Any]:
    """A worker's first trial at one depth, its second at another, its third at the first depth again."""
    from benchmarks.worker import Worker, request

    with_ray = time.monotonic()
    from trainable.devices import apply_devices, plan_devices

    apply_devices(plan_devices(threads, 0, []))
    from trainable.backbone import Backbone
    from trainable.network import Network
    from trainable.training import Training  # noqa: F401 - the rest of what a worker imports

    with_tensorflow = time.monotonic()
    built = Watched(Backbone, "__init__")
    steps = Watched(Network, "step", finish=lambda given: float(given[1]))
    worker, first, other = Worker(folder), depths[0], depths[-1]

    def warm(number: int, depth: int) -> tuple[float, float]:
        done, received = len(steps.began), time.monotonic()
        _run(worker, request(number, 1, freeze_depth=depth, **CHOSEN))
        return start_seconds(received, steps.began[done:], steps.ended[done:])

    _run(worker, request(0, 1, freeze_depth=first, **CHOSEN))
    marks = [began, with_ray, with_tensorflow, built.ended[0], steps.ended[0]]
    unseen = warm(1, other) if other != first else None
    return {"cold": _between(marks), "unseen": unseen, "known": warm(2, first)}


def stock(began: float, folder: Path, depths: Sequence[int], threads: int) -> dict[str, Any]:
    """To the end of the first batch of `fit`, in a program as Keras' guides write it; with the threads it takes."""
    import numpy as np

    from benchmarks.peers.task import Task, build

    with_python = time.monotonic()
    import keras

    with_tensorflow = time.monotonic()
    ends: list[float] = []

    class FirstBatch(keras.callbacks.Callback):
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            ends.append(time.monotonic())

    images = np.repeat(np.load(folder / "arrays" / "train.npy").astype(np.float32), 3, axis=-1)
    labels = np.arange(len(images)) % 2
    model = build(Task(folder, folder / "resnet50.weights.h5"), {"freeze_depth": depths[0], **CHOSEN})
    built = time.monotonic()
    model.fit(images, labels, epochs=1, batch_size=CHOSEN["batch_size"], callbacks=[FirstBatch()], verbose=0)
    return {"cold": _between([began, with_python, with_tensorflow, built, ends[0]])}


SYSTEMS = {"thawline": thawline, "fit": stock}


def fresh(system: str, folder: Path, depths: Sequence[int], threads: int) -> dict[str, Any]:
    """What one of the systems measures in a process of its own."""
    options = ["--folder", str(folder), "--threads", str(threads), "--depths", *map(str, depths)]
    began = ["--began", str(time.monotonic())]  # on Linux all processes share this clock
    done = subprocess.run(
        [sys.executable, __file__, "--one", system, *options, *began], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout.split("MEASURED ")[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--depths", type=int, nargs="+", default=[0, 1, 2, 3, 4, 5])
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--images", type=int, default=64, help="of each class, at least 48; 70 %% are trained on")
    parser.add_argument("--weights", type=Path, help="of ResNet50 without its top; default: random ones")
    parser.add_argument("--one", choices=SYSTEMS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--began", type=float, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.one:
        measured = SYSTEMS[asked.one](asked.began, asked.folder, asked.depths, asked.threads)
        print(f"MEASURED {json.dumps(measured)}")
        return
    print(setting("tensorflow", "keras", "ray"), flush=True)
    print(f"ResNet50 at {SIZE} px, {asked.threads} threads, {asked.rounds} rounds in turn", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        from benchmarks.worker import make_study

        make_study(Path(folder), asked.images, SIZE, asked.threads, asked.weights, features="off")
        tell(measure(Path(folder), asked.depths, asked.rounds, asked.threads))


Found = dict[tuple[str, int], list[Any]]


def measure(folder: Path, depths: Sequence[int], rounds: int, threads: int) -> Found:
    """What was measured, round by round, under its name and depth."""
    found: Found = {}
    for round_number in range(1, rounds + 1):
        for depth, other in zip(depths, [*depths[1:], depths[0]], strict=True):
            ours = fresh("thawline", folder, [depth, other], threads)
            theirs = fresh("fit", folder, [depth], threads)
            found.setdefault(("thawline", depth), []).append(ours["cold"])
            found.setdefault(("Keras fit", depth), []).append(theirs["cold"])
            found.setdefault(("known", depth), []).append(ours["known"])
            if ours["unseen"]:
                found.setdefault(("unseen", other), []).append(ours["unseen"])
            print(
                f"round {round_number}, depth {depth}: cold {sum(ours['cold']):.1f} s, "
                f"warm {ours['known'][1]:.3f} s, fit {sum(theirs['cold']):.1f} s",
                flush=True,
            )
    return found


def tell(found: Found) -> None:
    """Medians with their range, in seconds, and the goals."""
    depths = sorted({depth for _, depth in found})
    print("\ncold: seconds from the start of a process to the end of its first training step")
    print(f"{'':10} depth  {'together':22}" + "".join(f"{part:>19}" for part in SPLIT))
    for system in ("thawline", "Keras fit"):
        for depth in depths:
            rounds = found[system, depth]
            parts = "".join(f"{statistics.median(part):19.2f}" for part in zip(*rounds, strict=True))
            print(f"{system:10} {depth:5}  {spread([sum(each) for each in rounds]):22}{parts}")
    print("\nwarm: seconds from a configuration's receipt to the first step, and to its end less an ordinary step")
    print(f"{'':10} {'depth':>10}  {'to the first step':24} to its end, less an ordinary one")
    for kind in ("known", "unseen"):
        for depth in (each for each in depths if (kind, each) in found):
            to_step, start = zip(*found[kind, depth], strict=True)
            print(f"{kind:10} {depth:10}  {spread(to_step, 3):24} {spread(start, 3)}")
    slowest = max(statistics.median(start for _, start in found["known", depth]) for depth in depths)
    fits = [statistics.median(sum(each) for each in found["Keras fit", depth]) for depth in depths]
    print(
        f"\nwarm at a known depth: {slowest:.3f} s at most; {verdict(f'<= {WARM_SECONDS} s', slowest <= WARM_SECONDS)}"
    )
    low, high = STOCK_SECONDS
    print(f"cold with Keras' fit: {min(fits):.1f} to {max(fits):.1f} s by depth, where {low} to {high} s are expected")


def _run(worker: Any, asked: dict[str, Any]) -> None:
    last = worker.run(asked)[-1]
    if last["kind"] == "failed":
        raise SystemExit(f"the trial {asked} failed: {last['reason']}")


def _between(marks: Sequence[float]) -> list[float]:
    return [after - before for before, after in pairwise(marks)]


if __name__ == "__main__":
    main()

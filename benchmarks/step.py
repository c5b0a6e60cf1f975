"""What a training step takes, with convolutions alone and in the ways of `trainable/convolution.py`.

make bench-step                                                       # ResNet50 at 64 px, one thread, bfloat16: minutes
python benchmarks/step.py --image-size 224 --batches 8 --depths 0 4 --precisions float32

Each figure is the median of ten steps in a process of its own; the two kinds of process run by turns. `first` is the
making of the graph and the first step, in which oneDNN prepares its kernels.
"""

import argparse
import json
import math
import statistics
import subprocess
import sys
import time
from itertools import product
from typing import Any

from benchmarks.findings import setting, spread

STEPS = 10
WAYS = ("convolutions", "products")
PRECISIONS = {"float32": "float32", "bfloat16": "mixed_bfloat16"}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--image-size", type=int, default=64)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--depths", type=int, nargs="+", default=[0, 4])
    parser.add_argument("--batches", type=int, nargs="+", default=[16, 32, 64])
    parser.add_argument("--precisions", nargs="+", default=["bfloat16"], choices=list(PRECISIONS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.one:
        print(json.dumps(measure(**json.loads(asked.one))))
    else:
        compare(asked)


def compare(asked: argparse.Namespace) -> None:
    """Both kinds of process by turns, for every case."""
    print(setting("keras", "tensorflow"))
    print(f"ResNet50, {asked.image_size} px, {asked.threads} threads, {asked.rounds} rounds, ms of a step")
    for depth, precision, batch in product(asked.depths, asked.precisions, asked.batches):
        case = {"depth": depth, "precision": precision, "batch": batch}
        case |= {"image_size": asked.image_size, "threads": asked.threads}
        rounds = [{way: outside(**case, way=way) for way in WAYS} for _ in range(asked.rounds)]
        steps = [f"{way} {spread([1e3 * each[way]['step'] for each in rounds], 0)}" for way in WAYS]
        ratio = spread([each["products"]["step"] / each["convolutions"]["step"] for each in rounds])
        first = [f"{statistics.median(each[way]['first'] for each in rounds):.1f}" for way in WAYS]
        print(
            f"depth {depth}, {precision}, batch {batch}: {', '.join(steps)}, ratio {ratio}; first {', '.join(first)} s"
        )


def outside(**case: Any) -> dict[str, float]:
    """`measure`, in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.step", "--one", json.dumps(case)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def measure(depth: int, precision: str, batch: int, image_size: int, threads: int, way: str) -> dict[str, float]:
    """Seconds of the first step and the median of the next ones."""
    from trainable.devices import apply_devices, plan_devices

    apply_devices(plan_devices(threads, 0, []))
    import numpy as np

    from trainable import convolution, forward
    from trainable.backbone import Backbone
    from trainable.hyperparameters import Hyperparameters
    from trainable.network import Network, NetworkKey
    from trainable.settings import ModelSettings

    if way == "convolutions":
        convolution.best_way = lambda *_: convolution.Way.CONVOLUTION
        forward.BATCH = math.inf  # factors go into every kernel
    model = ModelSettings(weights="random", precision=PRECISIONS[precision])
    model = model.model_copy(
        update={"batch_norm": "frozen"}
    )  # refused of a study; it takes as long as with real weights
    chosen = Hyperparameters(learning_rate=1e-5, batch_size=batch, freeze_depth=depth)
    network = Network(Backbone(model, image_size, 1), NetworkKey.of(chosen, model, 1, 2))
    network.reset(chosen, 1)
    generator = np.random.default_rng(1)
    inputs = network.prefix(generator.uniform(0, 255, (batch, image_size, image_size, 1)))
    labels, weights = generator.integers(0, 2, batch), np.ones(batch)

    def step() -> float:
        began = time.perf_counter()
        network.step(inputs, labels, weights, (1, 1))[1].numpy()
        return time.perf_counter() - began

    first, *_ = (step() for _ in range(3))
    return {"first": first, "step": statistics.median(step() for _ in range(STEPS))}


if __name__ == "__main__":
    main()

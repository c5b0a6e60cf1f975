"""Epoch time by freeze depth, with and without kept features, on drawn slices: seconds, ratios and bytes.

make bench-cache
python benchmarks/cache.py --images 800 --size 64 --rounds 3 --depths 1 2 3 4 5

Depth 0 has no frozen part, so nothing is kept and both sides run the same code: how far its ratio is from 1 is what the
machine's unrest makes of it.
"""

import argparse
import tempfile
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.findings import setting, spread, verdict
from trainable.devices import apply_devices, plan_devices

AT_LEAST = {4: 1.5, 5: 100.0}  # the median ratio by depth of ResNet50
NEVER_BELOW = 0.97
PARTS = {"train": 1, "validation": 4}  # one image to so many


@dataclass(frozen=True)
class Row:
    """One depth: seconds of each epoch without kept features, of the first with them, and of later ones."""

    depth: int
    computed: list[float]
    first: float
    kept: list[float]
    image_bytes: int
    stored_bytes: int

    @property
    def ratios(self) -> list[float]:
        """How much faster kept is than computed, round by round."""
        return [one / other for one, other in zip(self.computed, self.kept, strict=True)]


def goal(depth: int) -> float:
    """What the median ratio must be at least."""
    return AT_LEAST.get(depth, NEVER_BELOW)


def make_task(size: int, count: int) -> Any:
    """Noise in two classes: how long an epoch takes does not depend on what is to be seen."""
    import numpy as np

    from trainable.dataset import ImageSet
    from trainable.training import Task

    random = np.random.default_rng(0)

    def images(part: str) -> ImageSet:
        number = count // PARTS[part]
        pixels = random.integers(0, 256, (number, size, size, 1), dtype=np.uint8)
        names = tuple(f"{part}{index}" for index in range(number))
        return ImageSet(pixels, np.arange(number) % 2, names, names, ("a", "b"))

    return Task(images("train"), images("validation"), 0, 1)


def measure(backbone: Any, model: Any, task: Any, depth: int, rounds: int) -> Row:
    """Epochs with and without, in turn."""
    import numpy as np

    from trainable.features import FeatureStore
    from trainable.hyperparameters import Hyperparameters
    from trainable.inputs import Keeping
    from trainable.network import Network, NetworkKey
    from trainable.training import Training

    chosen = Hyperparameters(freeze_depth=depth, augmentation_strength=0.5, views=1, learning_rate=1e-4)
    network = Network(backbone, NetworkKey.of(chosen, model, 1, 2))
    with tempfile.TemporaryDirectory() as folder:
        keeping = Keeping(FeatureStore(Path(folder), 10**11), "benchmark", "auto")

        def epoch(keep: Keeping | None) -> float:
            seconds = Training(network, chosen, task, 1, 1, keeping=keep).run_epoch().seconds
            return seconds["train"] + seconds["validation"]

        epoch(None)  # traces
        first = epoch(keeping)
        pairs = [(epoch(None), epoch(keeping)) for _ in range(rounds)]
        stored = sum(path.stat().st_size for path in Path(folder).glob("*.npy"))
    computed, kept = (list(side) for side in zip(*pairs, strict=True))
    image_bytes = int(np.prod(network.input_shape)) * np.dtype(keeping.dtype).itemsize if depth else 0
    return Row(depth, computed, first, kept, image_bytes, stored)


def told(row: Row) -> str:
    """One line of the table."""
    ratio = spread(row.ratios)
    times = f"{median(row.computed):10.2f} {row.first:8.2f} {median(row.kept):7.2f}"
    reached = verdict(f">= {goal(row.depth):g} x", median(row.ratios) >= goal(row.depth))
    judged = reached if row.depth else "control: the same code on both sides"
    return f"{row.depth:5} {times}  {ratio:24} {row.image_bytes:11,} {row.stored_bytes / 1e6:8.0f}  {judged}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=800)
    parser.add_argument("--size", type=int, nargs="+", default=[64, 96])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--depths", type=int, nargs="*", default=[0, 1, 2, 3, 4, 5])
    asked = parser.parse_args()
    print(setting("tensorflow", "keras", "numpy"), flush=True)
    apply_devices(plan_devices(asked.threads, 0, []))
    from trainable.backbone import Backbone
    from trainable.settings import ModelSettings

    model = ModelSettings(weights="random").model_copy(update={"batch_norm": "frozen"})  # speed needs no knowledge
    print(f"ResNet50, {asked.images} + {asked.images // 4} images, batches of 32, {asked.threads} threads, one view")
    for size in asked.size:
        backbone, task = Backbone(model, size, seed=1), make_task(size, asked.images)
        print(f"\n{size} px; seconds of an epoch\ndepth   computed    first    kept  {'ratio':24} bytes/image  MB kept")
        rows = []
        for depth in asked.depths:
            rows.append(measure(backbone, model, task, depth, asked.rounds))
            print(told(rows[-1]), flush=True)
        lowest = min((median(row.ratios) for row in rows if row.depth), default=1.0)
        print(f"lowest median ratio {lowest:.2f}; {verdict(f'never below {NEVER_BELOW} x', lowest >= NEVER_BELOW)}")


if __name__ == "__main__":
    main()

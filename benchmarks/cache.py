"""Epoch time by freeze depth, with and without kept features, on drawn slices: seconds, ratios and bytes.

make bench-cache
python benchmarks/cache.py --images 800 --size 64 --rounds 3 --depths 1 2 3 4 5
"""

import argparse
import statistics
import tempfile
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, default=800)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--depths", type=int, nargs="*", default=[1, 2, 3, 4, 5])
    arguments = parser.parse_args()
    from trainable.devices import apply_devices, plan_devices

    apply_devices(plan_devices(arguments.threads, 0, []))
    import numpy as np

    from trainable.backbone import Backbone
    from trainable.dataset import ImageSet
    from trainable.features import FeatureStore
    from trainable.hyperparameters import Hyperparameters
    from trainable.inputs import Keeping
    from trainable.network import Network, NetworkKey
    from trainable.settings import ModelSettings
    from trainable.training import Task, Training

    model = ModelSettings(weights="random").model_copy(update={"batch_norm": "frozen"})  # speed needs no knowledge
    backbone = Backbone(model, arguments.size, seed=1)
    random = np.random.default_rng(0)

    def images(part: str, count: int) -> ImageSet:
        pixels = random.integers(0, 256, (count, arguments.size, arguments.size, 1), dtype=np.uint8)
        names = tuple(f"{part}{index}" for index in range(count))
        return ImageSet(pixels, np.arange(count) % 2, names, names, ("a", "b"))

    task = Task(images("train", arguments.images), images("validation", arguments.images // 4), 0, 1)
    print("depth  computed s  first s  kept s  ratio (range)          bytes on disk, MB")
    for depth in arguments.depths:
        chosen = Hyperparameters(freeze_depth=depth, augmentation_strength=0.5, views=1, learning_rate=1e-4)
        network = Network(backbone, NetworkKey.of(chosen, model, 1, 2))
        with tempfile.TemporaryDirectory() as folder:
            keeping = Keeping(FeatureStore(Path(folder), 10**11), "benchmark", "auto")

            def epochs(keep: Keeping | None, count: int, network=network, chosen=chosen) -> list[float]:
                training = Training(network, chosen, task, 1, count, keeping=keep)
                results = [training.run_epoch().seconds for _ in range(count)]
                return [seconds["train"] + seconds["validation"] for seconds in results]

            epochs(None, 1)  # traces
            first = epochs(keeping, 1)[0]
            computed, kept = [], []
            for _ in range(arguments.rounds):
                computed += epochs(None, 1)
                kept += epochs(keeping, 1)
            ratios = [one / other for one, other in zip(computed, kept, strict=True)]
            size = sum(path.stat().st_size for path in Path(folder).glob("*.npy")) / 1e6
            spread = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
            times = f"{statistics.median(computed):11.2f} {first:8.2f} {statistics.median(kept):7.2f}"
            print(f"{depth:5} {times}  {spread:22} {size:6.0f}", flush=True)


if __name__ == "__main__":
    main()

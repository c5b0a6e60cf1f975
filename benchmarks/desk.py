"""What it costs that a host does not see the run folder: seconds and MB/s of inputs and checkpoints, node by node.

make bench-desk              # on the nodes of a Ray cluster made on this machine, so without a network between them
"""

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

from search.cluster import ray_environment
from search.desk import Home, open_desk
from search.outpost import Line, Outpost
from search.paths import StudyPaths

IMAGES = {"64 px": 2_482 * 64 * 64 * 3, "224 px": 2_482 * 224 * 224 * 3}  # bytes of the SARS-CoV-2 CT set in colour
WEIGHTS = 94_000_000  # of ResNet50
# Weights above the cut and Adam's two moments of each, float32 (the weights by stage: docs/experiments.md).
CHECKPOINTS = {"depth 0": 23_600_000 * 12, "depth 4": 15_000_000 * 12, "depth 5": 2_048 * 12}
MEGA = 1e6


class Host:
    """A worker on a node that sees nothing; each call returns seconds."""

    def __init__(self, home: Home, context: dict, folder: str):
        self.outpost = Outpost(home, Line(home.desk), Path(folder))
        self.context = context

    def bring(self, trial: str) -> float:
        began = time.perf_counter()
        self.outpost.take(trial)
        self.outpost.bring()
        return time.perf_counter() - began

    def hand_over(self, trial: str, epoch: int, size: int) -> float:
        folder = self.outpost.placed(self.context)["trials"] / trial / "checkpoint" / f"{epoch:06d}"
        folder.mkdir(parents=True)
        (folder / "arrays.npz").write_bytes(np.random.default_rng(epoch).bytes(size))
        (folder / "manifest.json").write_text("{}")
        began = time.perf_counter()
        self.outpost.hand_over()
        return time.perf_counter() - began


def told(what: str, size: float, seconds: list[float]) -> None:
    middle = statistics.median(seconds)
    speed = f", {size / MEGA / middle:.0f} MB/s" if size > MEGA else ""
    print(
        f"{what}: {size / MEGA:.1f} MB in {middle:.2f} s ({min(seconds):.2f} to {max(seconds):.2f}){speed}", flush=True
    )


def measure(root: Path, size_name: str, nodes: int, rounds: int) -> None:
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    run = StudyPaths(root / size_name.replace(" ", ""))
    run.arrays.mkdir(parents=True)
    (run.arrays / "train.npy").write_bytes(bytes(IMAGES[size_name]))
    (root / "weights.h5").write_bytes(bytes(WEIGHTS))
    context = {"arrays": run.arrays, "weights": root / "weights.h5", "trials": run.trials}
    places = [node["NodeID"] for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]
    with open_desk(Home.of(run, context)) as home:

        def host(node: int, folder: Path):
            folder.mkdir(exist_ok=True)
            place = NodeAffinitySchedulingStrategy(places[node], soft=False)
            return ray.remote(Host).options(num_cpus=0, scheduling_strategy=place).remote(home, context, str(folder))

        first = [host(node, root / f"{size_name}-{node}") for node in range(nodes)]
        brought = ray.get([each.bring.remote(str(number)) for number, each in enumerate(first)])
        told(f"{size_name}: images and weights to each of {nodes} nodes at once", IMAGES[size_name] + WEIGHTS, brought)
        second = host(0, root / f"{size_name}-0")
        told(f"{size_name}: the same, to a second worker of a node", 0, [ray.get(second.bring.remote("again"))])
        for trial, (name, size) in enumerate(CHECKPOINTS.items() if size_name == "64 px" else ()):
            ray.get(first[0].bring.remote(str(trial)))
            seconds = [ray.get(first[0].hand_over.remote(str(trial), epoch, size)) for epoch in range(1, rounds + 1)]
            told(f"checkpoint after an epoch at {name}", size, seconds)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--nodes", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    os.environ.update(ray_environment() | {"RAY_AUTH_MODE": "disabled"})  # on loopback, for a minute
    import ray
    from ray.cluster_utils import Cluster

    store = {"object_store_memory": 1_000_000_000}
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False, **store})
    for _ in range(asked.nodes):
        cluster.add_node(num_cpus=1, **store)
    cluster.wait_for_nodes()
    ray.init(cluster.address, log_to_driver=False, configure_logging=False)
    try:
        with tempfile.TemporaryDirectory() as folder:
            for size_name in IMAGES:
                measure(Path(folder), size_name, asked.nodes, asked.rounds)
    finally:
        ray.shutdown()
        cluster.shutdown()


if __name__ == "__main__":
    main()

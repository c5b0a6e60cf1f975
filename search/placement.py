"""How many trials fit where: decided from plain values, before and without Ray."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_TINY = 1e-9  # 0.3 / 0.1 is a little less than 3


@dataclass(frozen=True)
class TrialResources:
    """What one trial takes: TensorFlow threads, and whole GPUs or a fraction of one."""

    cpus: float = 1
    gpus: float = 0


def plan_concurrency(nodes: Sequence[Mapping[str, float]], per_trial: TrialResources, requested: int | None) -> int:
    """Trials at once: as many as were requested, else as many as fit on the nodes together, at least one.

    A trial never spans nodes. Its default of one CPU is the fast one: two trials with one thread each were 12-16 %
    faster than one with two (ResNet50 at 64 px, two cores).
    """
    return requested or max(1, sum(_trials_on(node, per_trial) for node in nodes))


def check_fits(nodes: Sequence[Mapping[str, float]], per_trial: TrialResources) -> str | None:
    """Why no node could ever run a trial, or None when one can.

    Nodes that offer no CPU at all are heads that wait for an autoscaler this process can't see; it is believed.
    """
    if any(_trials_on(node, per_trial) for node in nodes) or not any(node.get("CPU") for node in nodes):
        return None
    problems = [
        f"asked for {asked:g} {name}s per trial, the largest node has {largest:g}"
        for name, asked in (("CPU", per_trial.cpus), ("GPU", per_trial.gpus))
        if asked > (largest := max(node.get(name, 0) for node in nodes))
    ]
    together = f"asked for {per_trial.cpus:g} CPUs and {per_trial.gpus:g} GPUs per trial, no node has both"
    return "; ".join(problems) or together


def idle_gpu(per_trial: TrialResources) -> str | None:
    """What to say of a share that leaves a quarter of each GPU idle or more, because no further trial fits there."""
    if not 0 < per_trial.gpus < 1:
        return None
    together = _shares_of_a_gpu(per_trial.gpus)
    idle = 1 - together * per_trial.gpus
    if idle < 0.25:
        return None
    return (
        f"resources.gpus_per_trial: with {per_trial.gpus:g}, {together} at once fit on a GPU and {idle:.0%} of it lies "
        f"idle; {1 / together:.3g} leaves nothing, {1 / (together + 1):.2g} lets {together + 1} trials share it"
    )


def allowed_nodes(description: Mapping[str, Any]) -> list[dict[str, float]]:
    """Resources of the head and of every worker that a launcher file (cluster.yaml) allows, running yet or not."""
    kinds, head = dict(description.get("available_node_types", {})), description.get("head_node_type")
    limit = description.get("max_workers", 0)
    first = [kinds.pop(head)] if head in kinds else []
    workers = [kind for kind in kinds.values() for _ in range(kind.get("max_workers", limit))]
    return [kind.get("resources", {}) for kind in first + workers[:limit]]


def nodes_to_plan_for(
    description: Mapping[str, Any], living: Sequence[Mapping[str, float]]
) -> Sequence[Mapping[str, float]]:
    """The nodes that a launcher file allows, where it says what they have; else `living` as it came."""
    allowed = allowed_nodes(description)
    return allowed if any(node.get("CPU") for node in allowed) else living


def promised_nodes(description: Mapping[str, Any]) -> int:
    """How many nodes a launcher file keeps running, the head included; 0 where it says nothing."""
    kinds = description.get("available_node_types", {}).values()
    return 1 + sum(kind.get("min_workers", 0) for kind in kinds) if kinds else 0


def late_nodes(missing: int, concurrency: int) -> str:
    """What to say when a search is planned without some nodes that were promised."""
    return (
        f"resources.concurrency: planned as {concurrency} from the nodes that are there, but {missing} more will come; "
        "start the search again when `ray status` shows them, or set it"
    )


def _trials_on(node: Mapping[str, float], per_trial: TrialResources) -> int:
    by_cpu = math.floor(node.get("CPU", 0) / per_trial.cpus + _TINY)
    if not per_trial.gpus:
        return by_cpu
    gpus = node.get("GPU", 0)
    shared = per_trial.gpus < 1  # a share lies on one GPU; it is never pieced together from two
    by_gpu = gpus * _shares_of_a_gpu(per_trial.gpus) if shared else gpus // per_trial.gpus
    return min(by_cpu, int(by_gpu))


def _shares_of_a_gpu(share: float) -> int:
    return math.floor(1 / share + _TINY)

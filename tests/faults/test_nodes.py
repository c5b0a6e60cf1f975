"""Nodes that come and go under a search: lost, told to end, drained, lost before a trial ran on them."""

import os
import signal
import threading
import time
from types import SimpleNamespace

import pytest

from search.cluster import connect
from search.config import StudyConfig
from search.ledger import Ledger
from search.study import Study
from search.tune_bridge import run_trials

pytestmark = [pytest.mark.ray, pytest.mark.timeout(150)]

QUICK_CHECKS = {
    "health_check_initial_delay_ms": 500,
    "health_check_period_ms": 500,
    "health_check_timeout_ms": 500,
    "health_check_failure_threshold": 3,
}


class Nodes:
    """A Ray cluster whose nodes, one trial each, are lost in several ways; the last one stays."""

    def __init__(self):
        from ray.cluster_utils import Cluster

        few = {"object_store_memory": 100_000_000}
        head = {"num_cpus": 0, "include_dashboard": False, "_system_config": QUICK_CHECKS}
        self.cluster = Cluster(initialize_head=True, head_node_args=head | few)
        self.nodes = [self.cluster.add_node(wait=False, num_cpus=1, **few) for _ in range(5)]
        self.cluster.wait_for_nodes()

    def take(self):
        """The node that a trial is on or is being placed on."""
        from ray._private.state import actors

        while True:
            places = {actor["Address"]["NodeID"] for actor in actors().values() if actor["State"] != "DEAD"}
            for node in self.nodes:
                if node.node_id in places:
                    self.nodes.remove(node)
                    return node
            time.sleep(0.02)

    def lose(self):
        self.cluster.remove_node(self.take(), allow_graceful=False)

    def tell_to_end(self):
        [raylet] = self.take().all_processes["raylet"]
        os.kill(raylet.process.pid, signal.SIGTERM)

    def drain(self):
        from ray._raylet import GcsClient
        from ray.core.generated.autoscaler_pb2 import DrainNodeReason

        preemption = DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION")
        in_a_minute = int((time.time() + 60) * 1000)
        GcsClient(address=self.cluster.address).drain_node(self.take().node_id, preemption, "a test", in_a_minute)


@pytest.fixture(scope="module")
def study(folder, pretended):
    """A study of four trials, one after the other; each loses its node in a way of its own."""
    config = StudyConfig.parse(
        {
            "space": {"x": {"type": "float", "low": 0.1, "high": 1.0}},
            "objective": {"metric": "v"},
            "pruner": {"name": "none"},
            "budget": {"trials": 4, "epochs": 8, "retries": 0},
        }
    )
    context = {"folder": str(folder / "trials"), "fails": False, "epoch_seconds": 0.5, "troubles": {}}
    nodes = Nodes()
    ends = {(0, 0): nodes.lose, (1, 1): nodes.lose, (2, 1): nodes.tell_to_end, (3, 1): nodes.drain}

    def happened(event):
        end = ends.pop((getattr(event, "number", None), getattr(event, "epoch", 0)), None)
        if end:
            threading.Thread(target=end, daemon=True).start()

    try:
        with Ledger(folder / "study.db") as ledger, connect(nodes.cluster.address):
            ledger.listeners.append(happened)
            run_trials(Study(config, ledger), pretended.PretendedTrial, context, {"CPU": 1}, 1)
            trials = ledger.history.search_trials()
    finally:
        nodes.cluster.shutdown()
    begun = [
        [int(line.split()[0]) for line in (folder / "trials" / str(number) / "begun").read_text().splitlines()]
        for number in range(4)
    ]
    return SimpleNamespace(trials=trials, begun=begun)


def redone(study, number):
    return len(study.begun[number]) - len(set(study.begun[number]))


def test_f04_a_trial_whose_node_is_lost_before_it_ran_is_done_on_another(study):
    assert study.trials[0].status == "completed"
    assert redone(study, 0) <= 1


def test_f03_a_trial_moves_from_a_lost_node_uncharged_and_does_at_most_one_epoch_again(study):
    assert (study.trials[1].status, study.trials[1].attempts) == ("completed", 2)
    assert redone(study, 1) <= 1


def test_f05_a_trial_moves_from_a_node_that_is_told_to_end_uncharged(study):
    assert (study.trials[2].status, study.trials[2].attempts) == ("completed", 2)
    assert redone(study, 2) <= 1


def test_f05_a_trial_leaves_a_drained_node_right_after_an_epoch_and_does_at_most_one_again(study):
    assert (study.trials[3].status, study.trials[3].attempts) == ("completed", 2)
    assert redone(study, 3) <= 1
    assert study.trials[3].epochs[-1].epoch == 8

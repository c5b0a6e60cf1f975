"""A search on a cluster whose workers do not see the run folder, against the same search on this machine alone."""

import subprocess
import sys
from contextlib import contextmanager

import pytest

from search import desk
from search.config import StudyConfig
from search.driver import Session
from search.paths import StudyPaths
from trainable.image_trainable import ImageTrainable
from trainable.synthetic import draw_study

WEIGHTS = """
import sys, keras
keras.utils.set_random_seed(1)
network = keras.applications.MobileNetV2(include_top=False, weights=None, input_shape=(32, 32, 3))
network.save_weights(sys.argv[1])
"""
pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def document(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    images, weights = draw_study(folder, 20, 32, seed=1), folder / "mobilenetv2.weights.h5"
    subprocess.run([sys.executable, "-c", WEIGHTS, str(weights)], check=True)
    return {
        "data": {"path": str(images), "groups": str(folder / "groups.csv"), "image_size": 32},
        "model": {"architecture": "mobilenetv2", "weights": str(weights), "features": "off"},
        "space": {"learning_rate": {"type": "float", "low": 1e-4, "high": 1e-2, "log": True}},
        "training": {"batch_size": 8, "freeze_depth": 4},
        "objective": {"metric": "val_loss", "direction": "minimize"},
        "pruner": {"name": "none"},
        "budget": {"trials": 3, "epochs": 2},
        "resources": {"concurrency": 1},
        "storage": str(tmp_path_factory.mktemp("runs")),
    }


def searched(document, name, address=None):
    """Every epoch of a finished search, and the paths of its run."""
    config = StudyConfig.parse({**document, "name": name, "resources": {**document["resources"], "address": address}})
    with Session(config, ImageTrainable()) as session:
        session.search()
        trials = session.history.search_trials()
    return [(trial.parameters, [epoch.metrics for epoch in trial.epochs]) for trial in trials], session.paths


@contextmanager
def unseen(home):
    """A desk whose run folder no worker sees."""
    with desk_of_old(home) as opened:
        home.sign.unlink()
        yield opened


desk_of_old = desk.open_desk


@pytest.fixture(scope="module")
def far(document, tmp_path_factory):
    """The search on a cluster of a head without CPUs and one node; and the node folder."""
    from ray.cluster_utils import Cluster

    node = tmp_path_factory.mktemp("node")
    node.chmod(0o700)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("THAWLINE_NODE_FOLDER", str(node))
        patch.setattr(desk, "open_desk", unseen)
        few = {"object_store_memory": 100_000_000, "include_dashboard": False}
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **few})
        cluster.add_node(num_cpus=1, object_store_memory=100_000_000)
        try:
            table, paths = searched(document, "far", cluster.address)
        finally:
            cluster.shutdown()
    return table, paths, node


def test_the_results_are_those_of_a_search_on_one_machine_bit_for_bit(document, far):
    near, _ = searched(document, "near")
    assert far[0] == near


def test_checkpoints_and_logs_lie_in_the_run_folder(far):
    paths: StudyPaths = far[1]
    for number in range(3):
        text = (paths.trial(number) / "log.txt").read_text()
        assert [line.split()[4] for line in text.splitlines() if " epoch " in line] == ["1:", "2:"]
    kept = [path.name for path in paths.trials.glob("*/checkpoint/*/manifest.json")]
    assert len(kept) == 1


def test_nothing_of_the_study_stays_on_the_node(far):
    assert [path for path in far[2].iterdir() if path.is_dir()] == []
    assert not far[1].scratch.exists()

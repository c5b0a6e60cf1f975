"""The final training on a node with a GPU, when the driver's machine has none; the GPU is a word of Ray's here."""

import numpy as np
import pytest

from search.commands.final_stage import choose_finalists, finish
from search.commands.final_training import lacks_gpu, retrain_exported
from search.config import StudyConfig
from search.driver import Session
from search.view.progress import View
from trainable.image_trainable import ImageTrainable
from trainable.synthetic import draw_study

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    images = draw_study(folder, 20, 32, seed=1)
    return {
        "name": "it",
        "data": {"path": str(images), "groups": str(folder / "groups.csv"), "image_size": 32},
        "model": {"architecture": "mobilenetv2", "weights": "random", "features": "off"},
        "space": {"learning_rate": {"type": "float", "low": 1e-4, "high": 1e-2, "log": True}},
        "training": {"batch_size": 8, "freeze_depth": 4},
        "budget": {"trials": 2, "epochs": 1},
        "final": {"finalists": 1, "repeats": 1},
        "resources": {"concurrency": 1, "gpus_per_trial": 0.5},
        "storage": str(tmp_path_factory.mktemp("runs")),
    }


@pytest.fixture(scope="module")
def paths(config, tmp_path_factory):
    """A run whose trials and final training were done on a node of a cluster that the driver is no worker of."""
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        node = tmp_path_factory.mktemp("node")
        node.chmod(0o700)
        patch.setenv("THAWLINE_NODE_FOLDER", str(node))
        patch.setattr("trainable.retrain.retrain", None)  # in this process; the node has its own
        few = {"object_store_memory": 100_000_000}
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False, **few})
        with patch.context() as there:
            there.setenv("CUDA_VISIBLE_DEVICES", "0")
            cluster.add_node(num_cpus=1, num_gpus=1, **few)
        resources = config["resources"] | {"address": cluster.address}
        try:
            with Session(StudyConfig.parse({**config, "resources": resources}), ImageTrainable()) as session:
                session.search(choose_finalists(session))
                finish(session)
        finally:
            cluster.shutdown()
        assert [path for path in node.iterdir() if path.is_dir()] == []
    return session.paths


def test_a_machine_lacks_a_gpu_only_when_trials_had_some_of_a_cluster():
    asked = StudyConfig.parse({"resources": {"gpus_per_trial": 0.5, "address": "auto"}}).resources
    assert lacks_gpu(asked)
    assert not lacks_gpu(asked.model_copy(update={"gpus_per_trial": 0}))
    assert not lacks_gpu(asked.model_copy(update={"address": None}))


def test_the_model_comes_back_and_is_evaluated_here(paths):
    made = {path.name for path in paths.final.iterdir()}
    assert {"model.keras", "model.json", "history.csv", "validation.npy", "metrics.json"} <= made
    assert not (paths.trials / "final").exists()


def test_it_is_the_model_that_this_machine_would_have_trained(paths):
    there = np.load(paths.final / "validation.npy")
    retrain_exported(paths.best, paths, View())
    np.testing.assert_array_equal(np.load(paths.final / "validation.npy"), there)

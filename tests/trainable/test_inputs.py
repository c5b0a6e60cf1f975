from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from trainable.dataset import ImageSet
from trainable.hyperparameters import Hyperparameters

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("cpus")]


@pytest.fixture(scope="module")
def model():
    from trainable.settings import ModelSettings

    return ModelSettings(weights="random", batch_norm="train").model_copy(update={"batch_norm": "frozen"})


@pytest.fixture(scope="module")
def backbone(model):
    from trainable.backbone import Backbone

    return Backbone(model, 32, seed=1)


@pytest.fixture(scope="module")
def task():
    from trainable.training import Task

    random = np.random.default_rng(0)

    def images(part: str, count: int) -> ImageSet:
        pixels = random.integers(0, 256, (count, 32, 32, 1), dtype=np.uint8)
        labels = np.arange(count) % 2
        return ImageSet(pixels, labels, tuple(f"{part}{i}" for i in range(count)), ("g",) * count, ("a", "b"))

    return Task(images("t", 70), images("v", 30), positive=0, view_seed=5)


@pytest.fixture(scope="module")
def networks():
    return {}


@pytest.fixture
def run(backbone, model, task, networks):
    from trainable.network import Network, NetworkKey
    from trainable.training import Training

    def train(keeping, **chosen):
        hyperparameters = Hyperparameters(batch_size=16, learning_rate=1e-3, **chosen)
        key = NetworkKey.of(hyperparameters, model, 1, 2)
        network = networks.setdefault(key, Network(backbone, key))
        training = Training(network, hyperparameters, task, seed=3, epochs=3, keeping=keeping)
        return [training.run_epoch().metrics for _ in range(3)]

    return train


@pytest.fixture
def keeping(tmp_path: Path):
    from trainable.features import FeatureStore
    from trainable.inputs import Keeping

    return Keeping(FeatureStore(tmp_path, 10**9), "images and weights", "all")


@pytest.mark.parametrize(
    "chosen",
    [
        {"freeze_depth": 5, "augmentation_strength": 0.0},
        {"freeze_depth": 5, "augmentation_strength": 0.5},
        {"freeze_depth": 4, "augmentation_strength": 0.5, "views": 2},
        {"freeze_depth": 2, "augmentation_strength": 0.25},
    ],
)
def test_f38_kept_features_give_the_metrics_of_computed_ones(run, keeping, chosen):
    computed, kept, found = run(None, **chosen), run(keeping, **chosen), run(keeping, **chosen)
    for one, other in zip(computed, kept, strict=True):
        assert one == pytest.approx(other, abs=1e-5)
    assert found == kept


def test_a_deeper_cut_is_built_from_a_shallower_one(run, keeping, networks):
    run(keeping, freeze_depth=4, augmentation_strength=0.0)
    from_shallower = run(keeping, freeze_depth=5, augmentation_strength=0.0)
    key = next(key for key in networks if key.depth == 5)
    assert list(networks[key]._continued) == [4]
    assert from_shallower[-1] == pytest.approx(run(None, freeze_depth=5, augmentation_strength=0.0)[-1], abs=1e-5)


def test_views_of_one_strength_are_shared_whatever_else_differs(run, keeping, tmp_path):
    run(keeping, freeze_depth=5, augmentation_strength=0.5)
    files = sorted(path.name for path in tmp_path.glob("*.npy"))
    run(keeping, freeze_depth=5, augmentation_strength=0.5, dropout=0.3, label_smoothing=0.1)
    assert sorted(path.name for path in tmp_path.glob("*.npy")) == files
    assert len(files) == 4  # three views of the training images, the validation images once


def test_nothing_is_kept_when_statistics_below_the_cut_move(backbone, model, task, keeping, tmp_path):
    from trainable.network import Network, NetworkKey
    from trainable.training import Training

    hyperparameters = Hyperparameters(batch_size=32, freeze_depth=4)
    key = replace(NetworkKey.of(hyperparameters, model, 1, 2), batch_norm="train")
    training = Training(Network(backbone, key), hyperparameters, task, seed=3, epochs=1, keeping=keeping)
    training.run_epoch()
    backbone.restore()
    assert not list(tmp_path.glob("*.npy"))

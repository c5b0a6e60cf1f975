"""What tests of training share because it is costly: TensorFlow's one start, drawn images, weights, one ResNet50."""

import os

import numpy as np
import pytest

from trainable.dataset import build_arrays
from trainable.hyperparameters import Hyperparameters
from trainable.inspection import inspect_images
from trainable.preparation import prepare
from trainable.retrain import Recipe, retrain
from trainable.settings import DataSettings, ModelSettings, SplitShares
from trainable.split import make_split
from trainable.synthetic import draw_study


@pytest.fixture(scope="session")
def cpus():
    """CPUs that TensorFlow computes with; it starts once in a process, so whatever needs it asks for this first."""
    from trainable.devices import apply_devices, plan_devices

    count = os.cpu_count() or 1
    apply_devices(plan_devices(count, 0, []))
    return count


@pytest.fixture(scope="session")
def drawn(tmp_path_factory):
    """Settings of 2 x 20 drawn slices of 32 x 32 pixels with their patients."""
    folder = tmp_path_factory.mktemp("drawn")
    return DataSettings(
        path=draw_study(folder, 20, 32, seed=1),
        groups=folder / "groups.csv",
        split=SplitShares(train=0.6, validation=0.2, test=0.2),
        image_size=32,
        positive_class="lesion",
    )


@pytest.fixture(scope="session")
def parts(drawn, tmp_path_factory):
    """The drawn train and validation images as arrays."""
    folder = tmp_path_factory.mktemp("arrays")
    rows = make_split(inspect_images(drawn), drawn, seed=1)
    return tuple(build_arrays(folder, drawn, rows, part) for part in ("train", "validation"))


@pytest.fixture(scope="session")
def weights_file(cpus, parts, tmp_path_factory):
    """Weights of a ResNet50 that learnt nothing, but whose BatchNorm statistics fit the drawn images."""
    import keras

    keras.utils.set_random_seed(1)
    network = keras.applications.ResNet50(include_top=False, weights=None, input_shape=(32, 32, 3))
    for layer in network.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.0
    pixels = np.repeat(parts[0].images, 3, axis=-1).astype(np.float32)
    network(keras.applications.resnet.preprocess_input(pixels), training=True)
    path = tmp_path_factory.mktemp("weights") / "resnet50.weights.h5"
    network.save_weights(path)
    yield path
    path.unlink()  # 95 MB, and pytest keeps the folders of three runs


@pytest.fixture(scope="session")
def model_settings(weights_file):
    """A ResNet50 with those weights, cut by block."""
    return ModelSettings(weights=weights_file, freeze_unit="block")


class Networks:
    """Networks for given hyperparameters: cold as in a new process, or warm as on a worker that ran other trials.

    Attributes:
        backbone: What all warm networks share; whoever uses it begins with a reset.
    """

    def __init__(self, settings):
        self._settings = settings
        self._warm = {}
        self.backbone = self._new_backbone()

    def cold(self, hyperparameters, batch_norm="frozen"):
        from trainable.network import Network

        return Network(self._new_backbone(), self._key(hyperparameters, batch_norm))

    def warm(self, hyperparameters, batch_norm="frozen"):
        from trainable.network import Network

        key = self._key(hyperparameters, batch_norm)
        if key not in self._warm:
            self._warm[key] = Network(self.backbone, key)
        return self._warm[key]

    def _new_backbone(self):
        from trainable.backbone import Backbone

        return Backbone(self._settings, 32, seed=1)

    def _key(self, hyperparameters, batch_norm):
        from trainable.network import NetworkKey

        settings = self._settings.model_copy(update={"batch_norm": batch_norm})
        return NetworkKey.of(hyperparameters, settings, channels=1, classes=2)


@pytest.fixture(scope="session")
def networks(model_settings):
    return Networks(model_settings)


@pytest.fixture(scope="session")
def recipe():
    """How the final model of the drawn study is trained: two epochs, from nothing."""
    return Recipe(
        model=ModelSettings(weights="random"),
        hyperparameters=Hyperparameters(freeze_depth=4, batch_size=8, augmentation_strength=0.25),
        epochs=2,
        learning_rates=[2e-3, 1e-3],
        seed=3,
        view_seed=1,
        positive=1,
        colour="grey",
        max_pixels=50_000_000,
    )


@pytest.fixture(scope="session")
def retrained(cpus, drawn, recipe, tmp_path_factory):
    """A run folder with `split.csv`, `arrays/` and `final/`."""
    folder = tmp_path_factory.mktemp("run")
    prepare(drawn, recipe.model, recipe.hyperparameters.model_dump(), folder, recipe.view_seed, lambda *_: None)
    retrain(recipe, folder / "arrays", folder / "final", lambda *_: None)
    yield folder
    (folder / "final" / "model.keras").unlink()  # 95 MB, and pytest keeps the folders of three runs

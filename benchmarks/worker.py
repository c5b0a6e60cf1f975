"""A worker as Ray would have it, driven by hand, and the study of drawn images whose trials it runs."""

import os
import pickle
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from trainable.hyperparameters import Hyperparameters
from trainable.settings import DataSettings, ModelSettings
from trainable.trial import MESSAGE, ImageTrial

LARGEST = {"freeze_depth": 5, "batch_size": 64}
CONTEXT, WEIGHTS = "context.pickle", "resnet50.weights.h5"


def make_study(
    folder: Path, images: int, image_size: int, threads: int, weights: Path | None, features: str = "auto"
) -> None:
    """Draw and prepare a study of ResNet50, and leave there what its workers are told.

    TensorFlow does not start in this process.

    Args:
        folder: Empty.
        images: Of each of the two classes, at least 48; 70 % of them are trained on.
        image_size: Height and width in pixels.
        threads: That a worker computes with.
        weights: A `.weights.h5` file; None: one is made that knows nothing.
        features: `model.features` of the study.
    """
    from trainable.preparation import prepare  # imaging libraries, which no worker needs
    from trainable.synthetic import draw_study

    pictures = draw_study(folder, images, image_size, seed=1)
    if weights:
        (folder / WEIGHTS).symlink_to(weights.absolute())
    else:
        _outside(make_weights, folder / WEIGHTS, pictures, image_size)
    data = DataSettings(path=pictures, groups=folder / "groups.csv", image_size=image_size)
    model = ModelSettings(weights=folder / WEIGHTS, batch_norm="frozen", features=features)
    prepared = prepare(data, model, LARGEST, folder, 1, lambda *_: None)
    context = {
        **prepared.context,
        "training": Hyperparameters().model_dump(mode="json"),
        "objective": ["val_auc", "maximize"],
        "cpus": threads,
        "gpus": 0,
    }
    (folder / CONTEXT).write_bytes(pickle.dumps(context))


def make_weights(path: Path, pictures: Path, image_size: int) -> None:
    """Random weights of a ResNet50, with BatchNorm statistics that fit the pictures, so that nothing overflows."""
    from trainable.devices import apply_devices, plan_devices

    apply_devices(plan_devices(os.cpu_count() or 1, 0, []))  # without TensorFlow's greetings
    import keras
    import numpy as np
    from PIL import Image

    keras.utils.set_random_seed(1)
    network = keras.applications.ResNet50(include_top=False, weights=None, input_shape=(image_size, image_size, 3))
    for layer in network.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.0
    some = sorted(pictures.glob("*/*.png"))[:64]
    pixels = np.stack([np.asarray(Image.open(picture), np.float32) for picture in some])
    network(keras.applications.resnet.preprocess_input(np.repeat(pixels[..., None], 3, axis=-1)), training=True)
    network.save_weights(path)


def request(number: int, epochs: int, **parameters: Any) -> dict[str, Any]:
    """What a worker is told of a trial."""
    return {"key": [number, 0], "parameters": parameters, "seed": number, "epochs": epochs, "epochs_reported": 0}


class Worker:
    """The trainable of one Ray actor, without the actor."""

    def __init__(self, folder: Path):
        self.study = pickle.loads((folder / CONTEXT).read_bytes())
        self._trainable: ImageTrial | None = None

    def run(self, asked: dict[str, Any]) -> list[dict[str, Any]]:
        """All messages of a trial up to its last."""
        config = {"study": self.study, "trial": asked}
        if self._trainable is None:
            self._trainable = object.__new__(ImageTrial)  # its own __init__ would write to the user's home
            self._trainable.setup(config)
        else:
            self._trainable.reset_config(config)
        messages = [self._step()]
        while messages[-1]["kind"] != "failed" and not messages[-1].get("last"):
            messages.append(self._step())
        return messages

    def _step(self) -> dict[str, Any]:
        [message] = self._trainable.step()[MESSAGE]
        return message


def _outside(call: Any, *arguments: Any) -> None:
    """Do it in a process that ends with it."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        pool.submit(call, *arguments).result()

"""What all systems search: the same images, network, space and budget; for the peers as Keras' guides write it."""

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

TRIALS, EPOCHS, REDUCTION = 24, 9, 3
IMAGE_SIZE = 64
METRIC = "val_auc"
LEARNING_RATES, BATCH_SIZES, STRENGTH_STEP, DEEPEST = (1e-5, 1e-2), (16, 32, 64), 0.25, 5
# Of Thawline's augmentation at strength 1.
ZOOM, SHIFT = 0.2, 0.15


@dataclass(frozen=True)
class Task:
    """Images [n, 64, 64, 3] 0..255 and labels [n] of both parts, and the weights to start from."""

    folder: Path
    weights: Path

    @classmethod
    def read(cls, folder: Path) -> "Task":
        return cls(folder, Path(json.loads((folder / "task.json").read_text())["weights"]))

    def part(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        from trainable.dataset import ImageSet

        found = ImageSet.open(self.folder / "arrays", name)
        images = np.asarray(found.images, np.float32)
        return (np.repeat(images, 3, axis=-1) if images.shape[-1] == 1 else images), np.asarray(found.labels)


def build(task: Task, parameters: dict[str, Any]) -> Any:
    """ResNet50 with a new head, as Keras' guide to transfer learning builds it; BatchNorms frozen, as in Thawline."""
    import keras

    strength = parameters["augmentation_strength"]
    backbone = keras.applications.ResNet50(include_top=False, weights=None, input_shape=(IMAGE_SIZE, IMAGE_SIZE, 3))
    backbone.load_weights(task.weights)
    freeze(backbone, parameters["freeze_depth"])
    inputs = keras.Input((IMAGE_SIZE, IMAGE_SIZE, 3))
    outputs = inputs
    if strength:
        outputs = keras.layers.RandomFlip()(outputs)
        outputs = keras.layers.RandomZoom(ZOOM * strength)(outputs)
        outputs = keras.layers.RandomTranslation(SHIFT * strength, SHIFT * strength)(outputs)
    outputs = keras.applications.resnet.preprocess_input(outputs)
    outputs = keras.layers.GlobalAveragePooling2D()(backbone(outputs, training=False))
    model = keras.Model(inputs, keras.layers.Dense(1, activation="sigmoid")(outputs))
    model.compile(
        keras.optimizers.Adam(parameters["learning_rate"]),
        "binary_crossentropy",
        metrics=[keras.metrics.AUC(name="auc"), "accuracy"],
    )
    return model


def freeze(backbone: Any, depth: int) -> None:
    """Freeze the lowest `depth` of ResNet50's five stages, and every BatchNorm."""
    import keras

    first = {0: "", 1: "conv2", 2: "conv3", 3: "conv4", 4: "conv5", 5: "none"}[depth]
    moving = depth == 0
    for layer in backbone.layers:
        moving = moving or layer.name.startswith(first)
        layer.trainable = moving and not isinstance(layer, keras.layers.BatchNormalization)


def fit(task: Task, parameters: dict[str, Any], epochs: int, reported: Any) -> None:
    """`fit`, with a callback that hears of every epoch; `reported(epoch, value)` may raise to end it."""
    import keras

    class Told(keras.callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
            note(parameters, epoch + 1, logs[METRIC])
            reported(epoch + 1, logs[METRIC])

    images, labels = task.part("train")
    build(task, parameters).fit(
        images,
        labels,
        validation_data=task.part("validation"),
        epochs=epochs,
        batch_size=parameters["batch_size"],
        callbacks=[Told()],
        verbose=0,
    )


def note(parameters: dict[str, Any], epoch: int, value: float) -> None:
    """Write down an epoch, with the time; every system's go into one file of its run."""
    line = {"parameters": parameters, "epoch": epoch, "value": value, "process": os.getpid(), "at": time.time()}
    with Path(os.environ["PEERS_EPOCHS"]).open("a") as stream:
        stream.write(json.dumps(line) + "\n")

"""Where in an image a trained network saw reasons for a class: Grad-CAM (Selvaraju et al. 2017), as pictures.

The score that is explained is the log-odds of the class, not its logit: only differences of logits mean anything. On 80
drawn slices of 128 pixels the hottest place of a MobileNetV2 lay in a lesion for 78 % with log-odds, for 72 % with
logits, for 12 % by chance; at 64 pixels for 36 % and 28 %.
"""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf
from PIL import Image, ImageDraw, ImageFont

from trainable.architectures import ARCHITECTURES, POOLED
from trainable.decoding import open_image, read_image_file, upright_pixels
from trainable.errors import InputError
from trainable.inspection import in_utf8
from trainable.predict import Classifier
from trainable.whole_file import whole_file, write_csv

Floats = npt.NDArray[np.float32]

INDEX = ("picture", "file", "explained_class", "probability", "predicted")
CAPTION = 40
"""Pixels above the pictures, for class and probability."""


class Explainer:
    """Heat maps of one trained model, whatever part of it was frozen: gradients are taken by activations, not weights.

    Attributes:
        layer: Layer whose output is weighed: the deepest with enough places to tell one from another.
    """

    def __init__(self, classifier: Classifier):
        """Find the parts of a model that `retrain` made.

        Raises:
            InputError: when it does not say its architecture, or does not have those parts.
        """
        model, name = classifier.model, classifier.description.architecture
        if name not in ARCHITECTURES:
            raise InputError(
                f"--explain: model.json must name an architecture ({', '.join(ARCHITECTURES)}), but says {name!r}; "
                "retrain it"
            )
        nested = [each for each in model.layers if isinstance(each, keras.Model) and _has(each, POOLED)]
        if len(nested) != 1 or not _has(model, "head"):
            raise InputError("--explain: the model must be one that `retrain` made, but it has other parts: retrain it")
        backbone = nested[0]
        self.layer, features = _feature_map(backbone, ARCHITECTURES[name].blocks, classifier.description.image_size)
        trunk = keras.Model(backbone.input, [features, backbone.output])
        preprocess = getattr(keras.applications, ARCHITECTURES[name].module).preprocess_input
        head = model.get_layer("head")
        size = classifier.description.image_size

        def heat(images: Any, classes: Any) -> Any:
            return grad_cam(lambda pixels: trunk(preprocess(pixels), training=False), head, images, classes)

        signature = [tf.TensorSpec([None, size, size, 3], tf.float32), tf.TensorSpec([None], tf.int32)]
        self._heat = tf.function(heat, signature)

    def heat(self, images: npt.NDArray[np.uint8], classes: npt.NDArray[np.integer]) -> Floats:
        """What speaks for a class, by place.

        Args:
            images: Decoded, [n, size, size, 1 or 3].
            classes: Index of the class to explain, [n].

        Returns:
            [n, places, places] from 0 to 1, the largest value of an image being 1; all 0 where nothing speaks for it.
        """
        colours = np.broadcast_to(images, (*images.shape[:3], 3)).astype(np.float32)
        return np.asarray(self._heat(tf.constant(colours), tf.constant(classes, tf.int32)))


def grad_cam(trunk: Callable[[Any], tuple[Any, Any]], head: Callable[[Any], Any], images: Any, classes: Any) -> Any:
    """Feature maps weighed by the mean gradient of the class's log-odds, negative sums cut off, scaled to at most 1.

    Args:
        trunk: Images to a feature map [n, height, width, channels] and what the head takes, computed from it.
        head: To logits [n, classes].
        images: [n, size, size, 3].
        classes: [n] int32, the class to explain of each.

    Returns:
        [n, height, width].
    """
    with tf.GradientTape() as tape:
        tape.watch(images)  # so that everything computed from them is recorded
        features, pooled = trunk(images)
        log_odds = _log_odds(tf.cast(head(pooled), tf.float32), classes)
    gradients = tf.cast(tape.gradient(log_odds, features), tf.float32)
    weights = tf.reduce_mean(gradients, axis=(1, 2), keepdims=True)
    heat = tf.nn.relu(tf.reduce_sum(weights * tf.cast(features, tf.float32), axis=-1))
    return tf.math.divide_no_nan(heat, tf.reduce_max(heat, axis=(1, 2), keepdims=True))


def class_index(classes: Sequence[str], name: str) -> int:
    """Position of a class.

    Raises:
        InputError: when the model does not know it.
    """
    if name not in classes:
        raise InputError(f"--class: must be one of {', '.join(classes)}, but got {name}")
    return classes.index(name)


class Overlays:
    """Heat maps over the images they explain, a PNG each, and `index.csv`, which says what is in which."""

    def __init__(self, classifier: Classifier, folder: Path, wanted: str | None):
        """Prepare a folder.

        Args:
            classifier: The model.
            folder: Gets the pictures.
            wanted: Class to explain; None: of each image the predicted one.
        """
        self._classes = classifier.description.classes
        self._max_pixels = classifier.description.max_pixels
        self._wanted = None if wanted is None else class_index(self._classes, wanted)
        self._decide = classifier.decide
        self._explainer = Explainer(classifier)
        self._folder = folder
        self._rows: list[tuple[object, ...]] = []

    def add(
        self, files: Sequence[Path], images: npt.NDArray[np.uint8], probabilities: npt.NDArray[np.floating]
    ) -> None:
        """Explain some images that were read and predicted."""
        predicted = [self._classes.index(name) for name in self._decide(probabilities)]
        chosen = predicted if self._wanted is None else [self._wanted] * len(files)
        heat = self._explainer.heat(images, np.array(chosen))
        for file, warmth, index, row, answer in zip(files, heat, chosen, probabilities, predicted, strict=True):
            name, probability = self._classes[index], float(row[index])
            path = self._folder / picture_name(len(self._rows), file)
            with whole_file(path) as temporary:
                plain = _upright(file, self._max_pixels)
                draw_overlay(plain, warmth, f"{name} {probability:.3f}").save(temporary, format="PNG")
            self._rows.append((path.name, in_utf8(str(file)), name, probability, self._classes[answer]))

    def finish(self) -> int:
        """Write the index; the number of pictures."""
        write_csv(self._folder / "index.csv", INDEX, self._rows)
        return len(self._rows)


def picture_name(number: int, file: Path) -> str:
    """`00007_slice_3.png`: a name that is safe on any system, whatever the image's was, and never twice the same."""
    return f"{number:05d}_{re.sub(r'[^A-Za-z0-9-]+', '_', file.stem)[:60].strip('_') or 'image'}.png"


def draw_overlay(image: Image.Image, heat: Floats, caption: str, height: int = 320) -> Image.Image:
    """The image, and beside it the same under its heat, below a caption.

    Args:
        image: RGB, of any size.
        heat: [places, places] from 0 to 1, spread over the whole image.
        caption: One line.
        height: Of the image in the picture, in pixels.
    """
    from matplotlib import colormaps

    width = max(height // 4, min(4 * height, round(height * image.width / image.height)))
    plain = image.resize((width, height), Image.Resampling.LANCZOS)
    warmth = Image.fromarray(heat.astype(np.float32)).resize((width, height), Image.Resampling.BICUBIC)
    strength = np.asarray(warmth).clip(0, 1)[..., None]
    colours = 255 * colormaps["turbo"](strength[..., 0])[..., :3]
    cover = 0.65 * np.sqrt(strength)  # the image stays to be seen where it is hottest, untouched where it is cold
    mixed = (1 - cover) * np.asarray(plain, np.float32) + cover * colours
    picture = Image.new("RGB", (2 * width + 4, height + CAPTION), "white")
    picture.paste(plain, (0, CAPTION))
    picture.paste(Image.fromarray(mixed.round().astype(np.uint8)), (width + 4, CAPTION))
    line = "".join(character if character.isprintable() else " " for character in caption)
    ImageDraw.Draw(picture).text((8, 9), line, fill="#333333", font=ImageFont.load_default(18))
    return picture


def _feature_map(backbone: keras.Model, blocks: Sequence[str], image_size: int) -> tuple[str, Any]:
    """The deepest cut that has at least 7 x 7 places, as the last one of a network for 224 pixels has. Small images
    give fewer: there a sixteenth of their size is enough, but no less than 4.
    """
    wanted = min(7, max(4, image_size // 16))
    last = backbone.get_layer(POOLED).input
    candidates = [*((name, backbone.get_layer(name).output) for name in blocks if name != POOLED), ("last", last)]
    fine = [(name, tensor) for name, tensor in candidates if min(tensor.shape[1:3]) >= wanted]
    return (fine or candidates[:1])[-1]


def _log_odds(logits: Any, classes: Any) -> Any:
    """[n]: of the class against all others together."""
    chosen = tf.one_hot(classes, tf.shape(logits)[-1], on_value=True, off_value=False)
    others = tf.where(chosen, tf.fill(tf.shape(logits), -np.inf), logits)
    return tf.reduce_sum(tf.where(chosen, logits, 0.0), axis=-1) - tf.reduce_logsumexp(others, axis=-1)


def _has(model: Any, name: str) -> bool:
    return any(layer.name == name for layer in model.layers)


def _upright(file: Path, max_pixels: int) -> Image.Image:
    """The image as a person looks at it; small, because a picture is."""
    return upright_pixels(open_image(read_image_file(file, max_pixels), max_pixels), "rgb")

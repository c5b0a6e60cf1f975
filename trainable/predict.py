"""A saved model on new images."""

import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, ValidationError

from trainable.decoding import decode
from trainable.errors import InputError
from trainable.inspection import in_utf8
from trainable.memory import at_once, is_out_of_memory
from trainable.metrics import decide
from trainable.retrain import FinalPaths
from trainable.settings import MAX_PIXELS
from trainable.whole_file import sha256

ENDINGS = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".jp2", ".dcm"}
Explain = Callable[[Sequence[Path], npt.NDArray[np.uint8], npt.NDArray[np.floating]], None]


class Description(BaseModel):
    """`model.json`: what must be known to use the model beside it."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    classes: list[str]
    positive_class: str | None
    threshold: float
    image_size: int
    colour: Literal["grey", "rgb"]
    max_pixels: int = MAX_PIXELS
    sha256: str
    architecture: str | None = None

    @property
    def positive(self) -> int | None:
        return None if self.positive_class is None else self.classes.index(self.positive_class)


@dataclass(frozen=True)
class Classifier:
    """A trained model and how to read it."""

    model: Any
    description: Description

    @classmethod
    def load(cls, path: Path) -> "Classifier":
        """Load a model by its path, or `model.keras` by its folder, safely.

        Beside it lies `<its name>.json`, where it was exported, or the `model.json` of `retrain`.

        Raises:
            InputError: when model or description is missing, or the model is not the one that was described or brings
                code of its own.
        """
        model, description = described_model(path)
        return cls(_load_safely(model), description)

    def probabilities(self, images: npt.NDArray[np.uint8], batch_size: int | None = None) -> npt.NDArray[np.float32]:
        """[n, classes] for decoded images [n, height, width, 1 or 3]; fewer at a time where memory runs out."""
        batch_size = batch_size or at_once(64, self.description.image_size)
        try:
            parts = [self._batch(images[start : start + batch_size]) for start in range(0, len(images), batch_size)]
        except Exception as error:
            if batch_size == 1 or not is_out_of_memory(error):
                raise
        else:
            return np.concatenate(parts) if parts else np.empty((0, len(self.description.classes)), np.float32)
        return self.probabilities(images, max(1, batch_size // 4))  # here the error no longer holds what it had taken

    def _batch(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        colours = images.astype(np.float32)
        if colours.shape[-1] == 1:
            colours = np.repeat(colours, 3, axis=-1)
        return np.asarray(self.model(colours, training=False))

    def decide(self, probabilities: npt.NDArray[np.floating]) -> list[str]:
        """Class names, at the threshold that was chosen on validation."""
        chosen = decide(probabilities, self.description.positive, self.description.threshold)
        return [self.description.classes[index] for index in chosen]


def described_model(path: Path) -> tuple[Path, Description]:
    """The model that `Classifier.load` would load and what is said of it, without loading it.

    Raises:
        InputError: when one of them is missing, or the model is not the one that was described.
    """
    paths = FinalPaths.of(path)
    model = paths.model if path.is_dir() else path
    exported = model.with_name(f"{model.name}.json")
    try:
        described = (exported if exported.is_file() else paths.description).read_text(encoding="utf-8")
        description = Description.model_validate_json(described)
        came = sha256(model)
    except (OSError, ValidationError) as error:
        raise InputError(
            f"{paths.folder} must hold model.keras and model.json as `retrain` made them, but {error}"
        ) from error
    if came != description.sha256:
        raise InputError(f"{model} must be the model described beside it, but its sha256 differs: retrain it")
    return model, description


def find_images(places: Sequence[Path]) -> list[Path]:
    """Files named, and image files below folders named, in order; hidden ones only where they are named.

    Raises:
        InputError: when a place does not exist or nothing was found.
    """
    missing = [f"{place}: must be an image or a folder, but there is nothing" for place in places if not place.exists()]
    if missing:
        raise InputError(missing)
    found = [path for place in places for path in (_below(place) if place.is_dir() else [place])]
    if not found:
        raise InputError(f"no image found in {', '.join(map(str, places))} (endings {', '.join(sorted(ENDINGS))})")
    return found


def predict_files(
    classifier: Classifier,
    files: Sequence[Path],
    progress: Callable[[int, int], None],
    batch_size: int = 64,
    explain: Explain | None = None,
) -> Iterator[dict[str, Any]]:
    """One row per file: `file`, `predicted`, `probability_<class>` …, `error`; unreadable files have only an error.

    Args:
        classifier: The model.
        files: Images.
        progress: Is told how many of how many are done.
        batch_size: Images that are in memory at once.
        explain: Is given the files that could be read, their pixels and their probabilities, batch by batch.
    """
    wanted = classifier.description

    def read(path: Path) -> npt.NDArray[np.uint8] | str:
        try:
            return decode(path, wanted.image_size, wanted.colour, wanted.max_pixels)
        except InputError as error:
            return str(error)

    with ThreadPoolExecutor(4) as pool:
        for start in range(0, len(files), batch_size):
            batch = files[start : start + batch_size]
            pixels = list(pool.map(read, batch))
            readable = [image for image in pixels if not isinstance(image, str)]
            given = classifier.probabilities(np.stack(readable)) if readable else np.empty((0, len(wanted.classes)))
            if explain and readable:
                named = [path for path, image in zip(batch, pixels, strict=True) if not isinstance(image, str)]
                explain(named, np.stack(readable), given)
            rows = iter(zip(given, classifier.decide(given), strict=True))
            for path, image in zip(batch, pixels, strict=True):
                yield _row(path, image, wanted.classes, None if isinstance(image, str) else next(rows))
            progress(min(start + batch_size, len(files)), len(files))


def columns(classifier: Classifier) -> list[str]:
    """Columns of the rows that `predict_files` gives."""
    return ["file", "predicted", *(f"probability_{name}" for name in classifier.description.classes), "error"]


def _load_safely(path: Path) -> Any:
    import keras

    try:
        return keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # whatever a foreign archive makes Keras raise
        raise InputError(
            f"{path} must be a Keras model without code of its own, but loading failed: {error}"
        ) from error


def _row(path: Path, image: Any, classes: Sequence[str], result: tuple[Any, str] | None) -> dict[str, Any]:
    file = in_utf8(str(path))
    if result is None:
        return {
            "file": file,
            "predicted": "",
            **{f"probability_{name}": "" for name in classes},
            "error": in_utf8(image),
        }
    probabilities, predicted = result
    named = {f"probability_{name}": float(value) for name, value in zip(classes, probabilities, strict=True)}
    return {"file": file, "predicted": predicted, **named, "error": ""}


def _below(folder: Path) -> list[Path]:
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in ENDINGS and not _is_hidden(path.relative_to(folder)) and path.is_file()
    )


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def read_description(folder: Path) -> dict[str, Any]:
    """`model.json` as plain values."""
    document: dict[str, Any] = json.loads(FinalPaths(folder).description.read_text(encoding="utf-8"))
    return document

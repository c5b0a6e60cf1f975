"""The trained model in the formats that other programs run. Each is compared with the original before it counts.

Preprocessing is inside all of them: they take red, green and blue from 0 to 255 and give probabilities.
"""

import importlib.util
import json
import shutil
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from trainable.dataset import ImageSet
from trainable.errors import DeploymentError, InputError
from trainable.predict import Classifier
from trainable.retrain import FinalPaths, write_json
from trainable.whole_file import flush_to_disk, sha256, whole_file, whole_folder

Floats = npt.NDArray[np.float32]

CHECKED = 64
"""Images on which an exported model is compared with the original."""
BFLOAT16_TOLERANCE = 0.03
"""What is added for a model of `precision: mixed_bfloat16`: exported in float32, it rounds less than the original."""


@dataclass(frozen=True)
class Opened:
    """An exported model in the program it is meant for.

    Attributes:
        input: Name of its input.
        output: Name of its output.
        run: Images float32 [n, size, size, 3] from 0 to 255 to probabilities [n, classes], for any n.
    """

    input: str
    output: str
    run: Callable[[Floats], Floats]


@dataclass(frozen=True)
class Format:
    """A way to write a model.

    Attributes:
        name: As `--format` has it.
        ending: Of its file; empty: it is a folder.
        tolerance: Largest distance between a probability of the exported model and the original's.
        packages: Modules that it needs beside TensorFlow; the extra of Thawline that brings them has its name.
        write: Writes a Keras model to a path; None where the file is taken as it is.
        open: Opens what was written.
    """

    name: str
    ending: str
    tolerance: float
    packages: tuple[str, ...]
    write: Callable[[Any, Path], None] | None
    open: Callable[[Path], Opened]

    @property
    def default_name(self) -> str:
        return f"model{self.ending}" if self.ending else self.name


@dataclass(frozen=True)
class Deployment:
    """What was written, and how far from the original its probabilities are.

    Attributes:
        path: The file or folder.
        description: The JSON file beside it.
        images: Number of images compared.
        source: Which images those were.
        distance: Largest absolute difference of two probabilities.
        tolerance: What it may be.
    """

    path: Path
    description: Path
    images: int
    source: str
    distance: float
    tolerance: float


def check_request(format: Format, target: Path) -> None:
    """What can be known before TensorFlow starts.

    Raises:
        InputError: The path does not fit the format, something else stands there, or packages are missing.
    """
    problems = []
    missing = [name for name in format.packages if importlib.util.find_spec(name) is None]
    if missing:
        problems.append(
            f"--format {format.name}: needs {', '.join(missing)}: python -m pip install 'thawline[{format.name}]'"
        )
    if format.ending and target.suffix != format.ending:
        problems.append(f"{target}: must end in {format.ending} for --format {format.name}")
    if target.exists() and not _replaceable(format, target):
        problems.append(f"{target}: must be free or hold an earlier export, but something else is there")
    if problems:
        raise InputError(problems)


def deploy(final: Path, format: Format, target: Path, run_folder: Path) -> Deployment:
    """Write `final/model.keras` in another format, compared with the original, and `<target>.json` beside it.

    Args:
        final: The folder that holds model and description, or the path of a model.
        format: One of `FORMATS`.
        target: The file, or for a SavedModel the folder, to write; an earlier export there is replaced.
        run_folder: Whose decoded validation images are used for the comparison, if they are still there.

    Raises:
        InputError: As `check_request` and `Classifier.load`.
        DeploymentError: The exported model cannot be run, or its probabilities are too far from the original's. There
            is no file then.
    """
    check_request(format, target)
    classifier = Classifier.load(final)
    images, source = images_to_compare(run_folder / "arrays", classifier.description.image_size)
    tolerance = format.tolerance + BFLOAT16_TOLERANCE * is_mixed(classifier.model)
    description = target.with_name(f"{target.name}.json")
    with (whole_file if format.ending else whole_folder)(target) as unfinished:
        if format.write is None:
            shutil.copyfile(FinalPaths.of(final).model if final.is_dir() else final, unfinished)
        else:
            format.write(in_float32(classifier.model), unfinished)
        opened = format.open(unfinished)
        distance = largest_distance(opened.run, lambda each: np.asarray(classifier.model(each, training=False)), images)
        if not distance <= tolerance:  # NaN is no agreement either
            raise DeploymentError(
                f"--format {format.name}: probabilities must be within {tolerance:g} of those of model.keras, but "
                f"differ by {distance:.3g} on {len(images)} {source}; nothing was written"
            )
        deployment = Deployment(target, description, len(images), source, distance, tolerance)
        document = describe(classifier, format, opened, deployment, unfinished)
        for _, path in _files(unfinished):
            flush_to_disk(path)
        description.unlink(missing_ok=True)  # it speaks of what is about to be replaced
    write_json(description, document)
    return deployment


def images_to_compare(arrays: Path, image_size: int) -> tuple[Floats, str]:
    """Up to `CHECKED` validation images, evenly out of all; seeded noise where they are gone.

    Returns:
        float32 [n, image_size, image_size, 3] from 0 to 255, and what they are.
    """
    try:
        kept = ImageSet.open(arrays, "validation").images
    except InputError:
        kept = np.empty((0,))
    if len(kept) and kept.shape[1] == image_size:
        chosen = kept[np.unique(np.linspace(0, len(kept) - 1, CHECKED).astype(int))]
        return np.broadcast_to(chosen, (*chosen.shape[:3], 3)).astype(np.float32), "validation images"
    noise = np.random.default_rng(0).integers(0, 256, (CHECKED, image_size, image_size, 3))
    return noise.astype(np.float32), "images of seeded noise"


def largest_distance(one: Callable[[Floats], Floats], other: Callable[[Floats], Floats], images: Floats) -> float:
    """Between two probabilities for the same image and class; the first image comes alone, the others as one batch, so
    that a model which takes only one batch size is found out.
    """
    batches = [batch for batch in (images[:1], images[1:]) if len(batch)]
    return float(np.max([np.abs(one(batch) - other(batch)).max() for batch in batches]))  # NaN stays NaN


def describe(
    classifier: Classifier, format: Format, opened: Opened, deployment: Deployment, written: Path
) -> dict[str, Any]:
    """What a program must know to use the exported model."""
    described = classifier.description
    size = described.image_size
    comparison = asdict(deployment)
    return {
        "format": format.name,
        **described.model_dump(),  # its sha256 is that of the model.keras it was made of
        "input": {"name": opened.input, "shape": [None, size, size, 3], "dtype": "float32", "range": [0, 255]},
        "output": {"name": opened.output, "shape": [None, len(described.classes)], "dtype": "float32"},
        "preprocessing": _preprocessing(size, described.colour),
        "compared": {name: comparison[name] for name in ("images", "source", "distance", "tolerance")},
        "files": {name or deployment.path.name: sha256(path) for name, path in _files(written)},
    }


def is_mixed(model: Any) -> bool:
    """Whether any layer computes in bfloat16."""
    return '"mixed_bfloat16"' in json.dumps(model.get_config())


def in_float32(model: Any) -> Any:
    """The same weights in layers that compute in float32, because other programs know no mixed precision."""
    if not is_mixed(model):
        return model
    text = json.dumps(model.get_config()).replace('"mixed_bfloat16"', '"float32"').replace('"bfloat16"', '"float32"')
    plain = type(model).from_config(json.loads(text))
    plain.set_weights(model.get_weights())
    return plain


def _preprocessing(size: int, colour: str) -> str:
    channels = "red, green, blue" if colour == "rgb" else "the grey value (ITU-R 601 luma) three times"
    return (
        "is inside the model, decoding is not. Turn the image as its EXIF orientation says, lay transparent pixels "
        f"over black, divide 16-bit values by 257; resize the whole image to {size} x {size} pixels, bilinear with "
        f"anti-aliasing, without keeping its aspect ratio; give {channels}, from 0 to 255, not scaled."
    )


def _open_keras(path: Path) -> Opened:
    import keras

    model = keras.saving.load_model(path, compile=False, safe_mode=True)
    return Opened(model.inputs[0].name, model.layers[-1].name, lambda images: np.asarray(model(images, training=False)))


def _write_saved_model(model: Any, path: Path) -> None:
    model.export(path, format="tf_saved_model", verbose=False)


def _open_saved_model(path: Path) -> Opened:
    import tensorflow as tf

    loaded = tf.saved_model.load(path)
    serve = loaded.signatures["serving_default"]
    [name], [output] = serve.structured_input_signature[1], serve.structured_outputs

    def run(images: Floats, _kept: Any = loaded) -> Floats:  # the signature alone does not keep its variables alive
        return np.asarray(serve(**{name: tf.constant(images)})[output])

    return Opened(name, output, run)


def _write_tflite(model: Any, path: Path) -> None:
    model.export(path, format="litert", verbose=False)


def _open_tflite(path: Path) -> Opened:
    interpreter = _interpreter()(model_path=str(path))
    [(signature, names)] = interpreter.get_signature_list().items()
    [name], [output] = names["inputs"], names["outputs"]
    index = interpreter.get_input_details()[0]["index"]

    def run(images: Floats) -> Floats:
        interpreter.resize_tensor_input(index, images.shape)
        runner = interpreter.get_signature_runner(signature)
        return np.asarray(runner(**{name: images})[output])

    return Opened(name, output, run)


def _interpreter() -> Any:
    """LiteRT's own where it is installed, else the one that TensorFlow still brings."""
    try:
        from ai_edge_litert.interpreter import Interpreter  # type: ignore[import-not-found, unused-ignore] # optional
    except ImportError:
        import tensorflow as tf

        def Interpreter(model_path: str) -> Any:  # noqa: N802 - stands for the class
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # that it will move to the other package
                return tf.lite.Interpreter(model_path)

    return Interpreter


def _write_onnx(model: Any, path: Path) -> None:
    import keras

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tf2onnx speaks NumPy 1
        model(keras.ops.zeros((1, *model.input_shape[1:])))  # Keras wants a model that has been called
        model.export(path, format="onnx", verbose=False)
    _drop_unused_inputs(path)


def _drop_unused_inputs(path: Path) -> None:
    """tf2onnx 1.17 leaves constants that it folded away among the graph's inputs (VGG16's mean colour)."""
    import onnx  # type: ignore[import-untyped, unused-ignore] # as its stubs change

    model = onnx.load(path)
    used = {name for node in model.graph.node for name in node.input}
    unused = [value for value in model.graph.input if value.name not in used]
    for value in unused:
        model.graph.input.remove(value)
    if unused:
        onnx.save(model, path)


def _open_onnx(path: Path) -> Opened:
    import onnxruntime  # type: ignore[import-untyped, unused-ignore] # ships no types

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    [name], [output] = ([value.name for value in values] for values in (session.get_inputs(), session.get_outputs()))
    return Opened(name, output, lambda images: session.run([output], {name: images})[0])


FORMATS = {
    format.name: format
    for format in (
        Format("keras", ".keras", 1e-6, (), None, _open_keras),
        Format("savedmodel", "", 1e-5, (), _write_saved_model, _open_saved_model),
        Format("tflite", ".tflite", 1e-4, (), _write_tflite, _open_tflite),
        Format("onnx", ".onnx", 1e-4, ("tf2onnx", "onnx", "onnxruntime"), _write_onnx, _open_onnx),
    )
}


def _replaceable(format: Format, target: Path) -> bool:
    return target.is_file() if format.ending else (target / "saved_model.pb").is_file()


def _files(written: Path) -> list[tuple[str, Path]]:
    """Names below a folder, or an empty one for a file, and paths, in order."""
    if written.is_file():
        return [("", written)]
    return [(str(path.relative_to(written)), path) for path in sorted(written.rglob("*")) if path.is_file()]

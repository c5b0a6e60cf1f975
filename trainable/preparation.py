"""Everything that must hold before the first trial: images, split, weights and ranges, all problems told at once."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from trainable.architectures import ARCHITECTURES
from trainable.dataset import build_arrays
from trainable.errors import InputError
from trainable.inspection import UnreadableFile, inspect_images
from trainable.settings import DataSettings, ModelSettings
from trainable.split import SplitRow, data_fingerprint, make_split, read_split, split_summary, write_split
from trainable.weights_check import WeightsCheck
from trainable.whole_file import remove_unfinished, write_csv

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and how much there is."""


@dataclass(frozen=True)
class Prepared:
    """A study that may start.

    Attributes:
        record: What to write down: fingerprints, classes, counts.
        context: Plain values every trial needs; files and folders among them are paths.
        remarks: What whoever starts it should know, in sentences.
    """

    record: dict[str, Any]
    context: dict[str, Any]
    remarks: tuple[str, ...] = ()


def prepare(
    data: DataSettings, model: ModelSettings, largest: Mapping[str, Any], folder: Path, seed: int, progress: Progress
) -> Prepared:
    """Check everything, then write `split.csv` and the decoded train and validation images into the run folder.

    On a run folder that has its split already, that split is used as it is.

    Args:
        data: Images, groups and split.
        model: Network and weights.
        largest: The largest value that each hyperparameter may take in this study.
        folder: The run folder.
        seed: Of the study.
        progress: Is told how far each step is.

    Raises:
        InputError: with every problem; nothing but caches has been written then.
    """
    data = data.model_copy(update={"path": data.path.resolve()})
    split_file = folder / "split.csv"
    rows, unreadable, weights = _checked(data, model, largest, split_file, seed, progress)
    remove_unfinished(folder, "split.")
    remarks: tuple[str, ...] = ()
    if not split_file.exists():
        remarks = _list_unreadable(folder / "unreadable.csv", unreadable)
        write_split(split_file, rows)
    for part in ("train", "validation"):
        build_arrays(folder / "arrays", data, rows, part, lambda done, of: progress("decoding images", done, of))
    classes = sorted({row.class_name for row in rows})
    positive = positive_index(data, classes)
    fingerprint = data_fingerprint(rows, data)
    return Prepared(
        record={
            "data": {
                "fingerprint": fingerprint,
                "classes": classes,
                "positive_class": None if positive is None else classes[positive],
                "counts": split_summary(rows),
            },
            "weights_sha256": weights,
        },
        context={
            "arrays": folder / "arrays",
            "trials": folder / "trials",
            "features": folder / "scratch",
            "identity": _identity(fingerprint, model, weights, seed),
            "model": model.model_dump() | {"weights_sha256": weights},
            "positive": positive,
            "seed": seed,
        },
        remarks=remarks,
    )


def _checked(
    data: DataSettings,
    model: ModelSettings,
    largest: Mapping[str, Any],
    split_file: Path,
    seed: int,
    progress: Progress,
) -> tuple[tuple[SplitRow, ...], tuple[UnreadableFile, ...], str | None]:
    """The split, what it leaves out, and the sha256 of the weights, once nothing is wrong with anything.

    Raises:
        InputError: with every problem.
    """
    problems = depth_problems(model, largest)
    rows: tuple[SplitRow, ...] = ()
    unreadable: tuple[UnreadableFile, ...] = ()
    with WeightsCheck(model, data.image_size) as weights:
        try:
            if split_file.exists():
                rows = read_split(split_file)
            else:
                inspection = inspect_images(data, lambda done, of: progress("checking images", done, of))
                rows, unreadable = make_split(inspection, data, seed), inspection.unreadable
            problems += _batch_problems(rows, largest)
        except InputError as error:
            problems += error.problems
        progress("checking weights", 0, 1)
        problems += weights.problems()
        progress("checking weights", 1, 1)
    if problems:
        raise InputError(problems)
    return rows, unreadable, weights.sha256


def positive_index(data: DataSettings, classes: list[str]) -> int | None:
    """Which of two classes the scores speak of; None with more than two.

    Raises:
        InputError: when it is to be one that is not there.
    """
    if data.positive_class not in (None, *classes):
        raise InputError(f"data.positive_class: must be one of {', '.join(classes)}, but got {data.positive_class!r}")
    if len(classes) != 2:
        return None
    return classes.index(data.positive_class) if data.positive_class else 0


def depth_problems(model: ModelSettings, largest: Mapping[str, Any]) -> list[str]:
    """A freeze depth beyond the backbone."""
    depth = len(ARCHITECTURES[model.architecture].cuts(model.freeze_unit))
    if largest["freeze_depth"] <= depth:
        return []
    counted = f"{model.architecture} counted by {model.freeze_unit}"
    return [f"freeze_depth: must be at most {depth} for {counted}, but got {largest['freeze_depth']}"]


def _identity(fingerprint: str, model: ModelSettings, weights: str | None, seed: int) -> str:
    """What outputs of the frozen part depend on, besides the cut and the view."""
    first = weights or (f"random {seed}" if model.weights == "random" else "imagenet")
    parts = (fingerprint, first, model.architecture, model.freeze_unit, model.precision, metadata.version("keras"))
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def _batch_problems(rows: tuple[SplitRow, ...], largest: Mapping[str, Any]) -> list[str]:
    parts = largest.get("epochs_per_pass", 1)
    count = sum(row.part == "train" for row in rows) // parts
    if largest["batch_size"] <= count:
        return []
    what = "training images" if parts == 1 else "training images of an epoch"
    return [f"batch_size: must be at most the {count} {what}, but got {largest['batch_size']}"]


def _list_unreadable(path: Path, files: Sequence[UnreadableFile]) -> tuple[str, ...]:
    """Write down which files are left out, and say so where there are any."""
    path.unlink(missing_ok=True)  # of a start that was cut off
    if not files:
        return ()
    write_csv(path, ("file", "reason"), [(each.file, each.reason) for each in files])
    verb = "is" if len(files) == 1 else "are"
    return (f"{len(files)} of the files cannot be read and {verb} left out; {path.name} in the run lists them",)

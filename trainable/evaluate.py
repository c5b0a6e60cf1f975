"""The locked test set, opened once, and what the model is worth on it."""

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from trainable.dataset import ImageSet, build_arrays
from trainable.errors import InputError
from trainable.metrics import Interval, evaluate_part, metrics_document
from trainable.predict import Classifier, described_model, read_description
from trainable.retrain import FinalPaths, write_json
from trainable.settings import DataSettings
from trainable.split import SplitRow, read_split, split_summary
from trainable.whole_file import write_csv


def evaluate(
    data: DataSettings,
    run_folder: Path,
    facts: Mapping[str, Any],
    seed: int,
    progress: Callable[[str, int, int], None],
) -> dict[str, Interval]:
    """Score `final/model.keras` on the test images; write `metrics.json` and `predictions.csv`.

    The validation scores beside them come from the network that was trained without the validation images.

    Args:
        data: Where the images are.
        run_folder: Holds `split.csv`, `arrays/` and `final/`.
        facts: What `metrics.json` says beside the scores.
        seed: Of the bootstrap.
        progress: Is told how far it is.

    Returns:
        Scores of the test part with 95 % intervals.

    Raises:
        InputError: when the model, the split or test images are missing or changed.
    """
    paths = FinalPaths(run_folder / "final")
    classifier = Classifier.load(paths.folder)
    described = classifier.description
    rows = read_split(run_folder / "split.csv")
    data = data.model_copy(update={"path": data.path.resolve()})
    arrays = run_folder / "arrays"
    test = build_arrays(arrays, data, rows, "test", lambda done, of: progress("decoding test images", done, of))
    validation = ImageSet.open(arrays, "validation")
    parts = {
        "test": (test, classifier.probabilities(test.images)),
        "validation": (validation, np.load(paths.validation)),
    }
    scored = {
        name: evaluate_part(images.labels, probabilities, images.groups, described.positive, described.threshold, seed)
        for name, (images, probabilities) in parts.items()
    }
    summary = split_summary(rows)
    document = metrics_document(
        scored["test"],
        scored["validation"],
        seed,
        {
            "threshold": described.threshold,
            "positive_class": described.positive_class,
            "classes": described.classes,
            "counts": _counts(summary, described.classes),
            "configuration": read_description(paths.folder)["hyperparameters"],
            **facts,
        },
    )
    _write_predictions(paths, classifier, parts)
    write_json(paths.metrics, document)
    return scored["test"]


def check_evaluable(data: DataSettings, run_folder: Path) -> None:
    """That what `evaluate` needs is there, as far as can be told without a look at a test image.

    Raises:
        InputError: with every problem.
    """
    final, arrays, rows = FinalPaths(run_folder / "final"), run_folder / "arrays", read_split(run_folder / "split.csv")
    problems: list[str] = []
    for check in (
        lambda: described_model(final.folder),
        lambda: ImageSet.open(arrays, "validation"),
        lambda: _check_test_images(data, arrays, rows),
    ):
        try:
            check()
        except InputError as error:
            problems += error.problems
    if not final.validation.is_file():
        problems.append(f"{final.folder} must hold {final.validation.name} as `retrain` made it, but it is missing")
    if problems:
        raise InputError(problems)


def _check_test_images(data: DataSettings, arrays: Path, rows: Sequence[SplitRow]) -> None:
    with suppress(InputError):
        ImageSet.open(arrays, "test")
        return
    test = [row.file for row in rows if row.part == "test"]
    missing = [file for file in test if not os.path.isfile(data.path / file)]  # noqa: PTH113 - it raises nothing
    if not test:
        raise InputError("part `test` must hold images, but the split gives it none")
    if missing:
        raise InputError(
            f"{data.path} must hold the {len(test)} test images, but {len(missing)} of them are not there, the first "
            f"{missing[0]}; bring them back, or change `data.path` in best.yaml"
        )


def _write_predictions(paths: FinalPaths, classifier: Classifier, parts: Mapping[str, tuple[ImageSet, Any]]) -> None:
    classes = classifier.description.classes
    header = ["file", "group", "part", "class", "predicted", *(f"probability_{name}" for name in classes)]
    rows = [
        [file, group, part, classes[label], predicted, *map(float, row)]
        for part, (images, probabilities) in parts.items()
        for file, group, label, predicted, row in zip(
            images.files, images.groups, images.labels, classifier.decide(probabilities), probabilities, strict=True
        )
    ]
    write_csv(paths.predictions, header, rows)


def _counts(summary: Mapping[str, Any], classes: list[str]) -> dict[str, Any]:
    return {
        "images": {part: {name: facts["classes"].get(name, 0) for name in classes} for part, facts in summary.items()},
        "groups": {part: facts["groups"] for part, facts in summary.items()},
    }

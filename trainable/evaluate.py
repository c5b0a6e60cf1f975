"""The locked test set, opened once, and what the model is worth on it."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from trainable.dataset import ImageSet, build_arrays
from trainable.metrics import Interval, evaluate_part, metrics_document
from trainable.predict import Classifier, read_description
from trainable.retrain import FinalPaths, write_json
from trainable.settings import DataSettings
from trainable.split import read_split, split_summary
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

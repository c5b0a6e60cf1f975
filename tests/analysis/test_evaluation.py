import csv
import json
import math

import numpy as np
import pandas as pd
import pytest

from analysis.evaluation import (
    Evaluation,
    class_names,
    confident_mistakes,
    confusion,
    doubts,
    read_evaluation,
    read_predictions,
    reliability,
    roc_curves,
    stated,
    training_curve,
)
from trainable.metrics import expected_calibration_error, scores

CLASSES = ["COVID", "NonCOVID"]


def predictions(classes, rows):
    """A table of test images from (actual, predicted, probabilities)."""
    return pd.DataFrame(
        [
            {"file": f"image {number}.png", "group": f"patient {number}", "part": "test", "class": actual}
            | {"predicted": predicted}
            | {f"probability_{name}": share for name, share in zip(classes, shares, strict=True)}
            for number, (actual, predicted, shares) in enumerate(rows)
        ]
    )


def five_images():
    return predictions(
        CLASSES,
        [
            ("COVID", "COVID", (0.9, 0.1)),
            ("COVID", "COVID", (0.6, 0.4)),
            ("COVID", "NonCOVID", (0.2, 0.8)),
            ("NonCOVID", "COVID", (0.7, 0.3)),
            ("NonCOVID", "NonCOVID", (0.1, 0.9)),
        ],
    )


def evaluated(ill, well, **metrics):
    """An evaluation with so many groups of each class."""
    rows = [("COVID", "COVID", (0.9, 0.1))] * ill + [("NonCOVID", "NonCOVID", (0.1, 0.9))] * well
    return Evaluation(
        predictions(CLASSES, rows), pd.DataFrame(), {"accuracy": {"value": 0.8, "interval": [0.7, 0.9]}} | metrics
    )


def test_the_class_with_the_fewest_groups_says_how_much_intervals_tell():
    assert doubts(evaluated(30, 200)) == []
    (doubt,) = doubts(evaluated(4, 200))
    assert doubt.startswith("Few test groups hold COVID (4), so the intervals are too narrow")


def test_an_interval_without_width_is_no_certainty():
    (doubt,) = doubts(evaluated(40, 200, sensitivity={"value": 1.0, "interval": [1.0, 1.0]}))
    assert "some 3 in n of others may still" in doubt
    assert doubts(evaluated(40, 200, auc={"value": None, "interval": [None, None]})) == []


def write_csv(path, header, rows):
    with path.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows([header, *rows])


def test_text_stays_text_and_floats_come_back_exactly(tmp_path):
    header = ["file", "group", "part", "class", "predicted", "probability_NA", "probability_01\r\n$"]
    share = 0.1 + 0.2
    write_csv(
        tmp_path / "predictions.csv",
        header,
        [["a,b.png", "007", "test", "NA", "01\r\n$", repr(share), repr(1 - share)]],
    )
    table = read_predictions(tmp_path / "predictions.csv")
    assert class_names(table) == ["NA", "01\r\n$"]
    assert table.loc[0].tolist() == ["a,b.png", "007", "test", "NA", "01\r\n$", share, 1 - share]


def test_a_missing_column_is_named(tmp_path):
    write_csv(tmp_path / "predictions.csv", ["file", "part", "class", "probability_a"], [])
    with pytest.raises(ValueError, match=r"lacks \['group', 'predicted'\]"):
        read_predictions(tmp_path / "predictions.csv")


def test_a_class_without_probabilities_is_named(tmp_path):
    header = ["file", "group", "part", "class", "predicted", "probability_a", "probability_b"]
    write_csv(tmp_path / "predictions.csv", header, [["x.png", "g", "test", "a", "c", "0.5", "0.5"]])
    with pytest.raises(ValueError, match=r"lacks \['c'\]"):
        read_predictions(tmp_path / "predictions.csv")


def test_an_evaluation_is_read_with_its_test_part_apart(tmp_path):
    header = ["file", "group", "part", "class", "predicted", "probability_a", "probability_b"]
    rows = [["1.png", "g", "validation", "a", "a", "1", "0"], ["2.png", "h", "test", "b", "a", "0.75", "0.25"]]
    write_csv(tmp_path / "predictions.csv", header, rows)
    write_csv(tmp_path / "history.csv", ["epoch", "loss", "val_loss"], [[1, 0.5, ""]])
    (tmp_path / "metrics.json").write_text(json.dumps({"positive_class": "a"}), encoding="utf-8")
    evaluation = read_evaluation(tmp_path)
    assert evaluation.test["file"].tolist() == ["2.png"]
    assert evaluation.positive_class == "a"
    assert evaluation.best_epoch is None


def test_the_confusion_matrix_has_actual_classes_as_rows():
    found = confusion(five_images())
    assert found.classes == CLASSES
    assert found.counts.tolist() == [[2, 1], [1, 1]]
    assert found.shares.ravel().tolist() == pytest.approx([2 / 3, 1 / 3, 1 / 2, 1 / 2])


def test_a_class_without_images_has_counts_of_zero_and_no_shares():
    found = confusion(predictions(["a", "b", "c"], [("a", "c", (0.2, 0.2, 0.6)), ("a", "a", (0.8, 0.1, 0.1))]))
    assert found.counts.tolist() == [[1, 0, 1], [0, 0, 0], [0, 0, 0]]
    assert found.shares[0].tolist() == [0.5, 0, 0.5]
    assert np.isnan(found.shares[1:]).all()


def test_the_curve_of_the_positive_class_has_the_area_that_metrics_state():
    table = five_images()
    [curve] = roc_curves(table, "COVID")
    assert curve.auc == pytest.approx(4 / 6)
    probabilities = table[["probability_COVID", "probability_NonCOVID"]].to_numpy()
    assert curve.auc == pytest.approx(scores(np.array([0, 0, 0, 1, 1]), probabilities, positive=0)["auc"])
    assert (curve.false_positive_rate[0], curve.true_positive_rate[0]) == (0, 0)
    assert (curve.false_positive_rate[-1], curve.true_positive_rate[-1]) == (1, 1)


def test_three_classes_have_a_curve_each_and_an_absent_one_an_empty_curve():
    rows = [("a", "a", (0.8, 0.1, 0.1)), ("b", "b", (0.1, 0.8, 0.1))]
    curves = roc_curves(predictions(["a", "b", "c"], rows), None)
    assert [curve.name for curve in curves] == ["a", "b", "c"]
    assert [curve.auc for curve in curves[:2]] == [1, 1]
    assert math.isnan(curves[2].auc)
    assert len(curves[2].true_positive_rate) == 0


def test_reliability_of_three_bins_by_hand():
    rows = [("a", "a", (0.9, 0.1)), ("b", "a", (0.7, 0.3)), ("b", "b", (0.4, 0.6)), ("a", "a", (0.6, 0.4))]
    found = reliability(predictions(["a", "b"], rows), bins=3)
    assert found.edges.tolist() == pytest.approx([0, 1 / 3, 2 / 3, 1])
    assert found.counts.tolist() == [0, 2, 2]
    assert found.confidence[1:].tolist() == pytest.approx([0.6, 0.8])
    assert found.accuracy[1:].tolist() == [1, 0.5]
    assert math.isnan(found.confidence[0])
    assert math.isnan(found.accuracy[0])


def test_reliability_bins_add_up_to_the_calibration_error_of_the_metrics():
    generator = np.random.default_rng(5)
    for classes in (["a", "b"], ["a", "b", "c"]):
        labels = generator.integers(len(classes), size=200)
        probabilities = generator.dirichlet(np.ones(len(classes)), size=200)
        rows = [(classes[label], "a", shares) for label, shares in zip(labels, probabilities, strict=True)]
        found = reliability(predictions(classes, rows))
        error = np.nansum(found.counts * np.abs(found.accuracy - found.confidence)) / 200
        assert error == pytest.approx(expected_calibration_error(labels, probabilities))


def test_a_curve_without_validation_is_nan_there():
    history = pd.DataFrame({"epoch": [1, 2], "loss": [0.5, 0.4], "val_loss": [math.nan, math.nan]})
    assert training_curve(history, "loss").train.tolist() == [0.5, 0.4]
    assert np.isnan(training_curve(history, "loss").validation).all()
    assert np.isnan(training_curve(history, "accuracy").train).all()


def test_the_best_epoch_is_the_one_named_or_the_one_of_the_lowest_validation_loss():
    history = pd.DataFrame({"epoch": [1, 2, 3], "loss": [3, 2, 1], "val_loss": [0.5, 0.3, math.nan]})
    assert Evaluation(five_images(), history, {}).best_epoch == 2
    assert Evaluation(five_images(), history, {"best_epoch": 3}).best_epoch == 3
    assert Evaluation(five_images(), history.drop(columns="val_loss"), {}).best_epoch is None


def test_mistakes_come_most_confident_first_then_by_file():
    rows = [("a", "b", (0.3, 0.7)), ("a", "a", (0.9, 0.1)), ("b", "a", (0.7, 0.3)), ("b", "a", (0.95, 0.05))]
    found = confident_mistakes(predictions(["a", "b"], rows))
    assert found["file"].tolist() == ["image 3.png", "image 0.png", "image 2.png"]
    assert found["confidence"].tolist() == [0.95, 0.7, 0.7]
    assert list(found) == ["file", "group", "class", "predicted", "confidence"]
    assert len(confident_mistakes(predictions(["a", "b"], rows), count=1)) == 1
    assert confident_mistakes(predictions(["a", "b"], rows[1:2])).empty


@pytest.mark.parametrize(
    ("value", "interval", "words"),
    [
        (0.85, [0.79, 0.9], "0.850 [0.790, 0.900]"),
        (0.85, [None, None], "0.850"),
        (None, [None, None], "not defined"),
    ],
)
def test_a_metric_is_stated_with_what_is_known_of_it(value, interval, words):
    assert stated({"value": value, "interval": interval}) == words

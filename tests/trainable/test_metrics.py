import json
import math
import warnings

import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

from trainable.metrics import (
    Interval,
    bootstrap_intervals,
    brier,
    decide,
    evaluate_part,
    expected_calibration_error,
    metrics_document,
    operating_point,
    scores,
)

NAMES = ["accuracy", "balanced_accuracy", "auc", "f1", "sensitivity", "specificity", "loss"]


def two(*positive_probabilities):
    """Rows of two classes from the probabilities of class 0."""
    first = np.array(positive_probabilities, dtype=float)
    return np.stack([first, 1 - first], axis=1)


def random_case(generator, images, classes):
    labels = np.r_[np.arange(classes), generator.integers(classes, size=images - classes)]
    # Coarse probabilities, so that ties occur.
    raw = np.round(generator.dirichlet(np.ones(classes), size=images), 1) + 0.01
    return labels, raw / raw.sum(axis=1, keepdims=True)


def test_scores_of_five_images_counted_by_hand():
    # Class 0 is positive; decided 0, 0, 1 | 0, 1: two hits, one miss, one false alarm, one true negative.
    found = scores(np.array([0, 0, 0, 1, 1]), two(0.9, 0.6, 0.2, 0.7, 0.1), positive=0)
    assert found == pytest.approx(
        {
            "accuracy": 3 / 5,
            "balanced_accuracy": (2 / 3 + 1 / 2) / 2,
            "auc": 4 / 6,
            "f1": 2 / 3,
            "sensitivity": 2 / 3,
            "specificity": 1 / 2,
            "loss": -math.log(0.9 * 0.6 * 0.2 * 0.3 * 0.9) / 5,
        }
    )
    assert list(found) == NAMES
    assert all(type(value) is float for value in found.values())


def test_with_the_other_class_positive_sensitivity_and_specificity_change_places():
    labels, probabilities = np.array([0, 0, 0, 1, 1]), two(0.9, 0.6, 0.2, 0.7, 0.1)
    first, second = scores(labels, probabilities, positive=0), scores(labels, probabilities, positive=1)
    assert (first["sensitivity"], first["specificity"]) == (second["specificity"], second["sensitivity"])
    assert first["auc"] == second["auc"]
    assert second["f1"] == pytest.approx(1 / 2)


def test_an_image_on_the_threshold_is_positive():
    assert decide(two(0.3, 0.29, 0.31), positive=0, threshold=0.3).tolist() == [0, 1, 0]
    assert decide(two(0.3, 0.29, 0.31), positive=1, threshold=0.7).tolist() == [1, 1, 0]


def test_a_threshold_between_two_float32_neighbours_still_separates_them():
    lower = np.float32(0.3)
    upper = np.nextafter(lower, np.float32(1))
    probabilities = np.stack([np.array([lower, upper]), 1 - np.array([lower, upper])], axis=1)
    threshold = operating_point(np.array([1, 0]), probabilities, positive=0)
    assert decide(probabilities, positive=0, threshold=threshold).tolist() == [1, 0]


@pytest.mark.filterwarnings("ignore:The y_prob values")  # float32 rows, seen in float64
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_two_class_scores_equal_scikit_learn(dtype):
    generator = np.random.default_rng(7)
    for _ in range(50):
        labels, probabilities = random_case(generator, images=int(generator.integers(3, 60)), classes=2)
        probabilities = probabilities.astype(dtype)
        found = scores(labels, probabilities, positive=1, threshold=0.4)
        decided = (probabilities[:, 1].astype(float) >= 0.4).astype(int)
        assert found == pytest.approx(
            {
                "accuracy": sklearn_metrics.accuracy_score(labels, decided),
                "balanced_accuracy": sklearn_metrics.balanced_accuracy_score(labels, decided),
                "auc": sklearn_metrics.roc_auc_score(labels, probabilities[:, 1]),
                "f1": sklearn_metrics.f1_score(labels, decided),
                "sensitivity": sklearn_metrics.recall_score(labels, decided),
                "specificity": sklearn_metrics.recall_score(labels, decided, pos_label=0),
                "loss": sklearn_metrics.log_loss(labels, probabilities.astype(float), labels=[0, 1]),
            },
            rel=1e-5,
        )


def test_scores_of_more_classes_equal_scikit_learns_macro_averages():
    generator = np.random.default_rng(8)
    for classes in (3, 4, 7):
        labels, probabilities = random_case(generator, images=80, classes=classes)
        found = scores(labels, probabilities, positive=None)
        decided = probabilities.argmax(axis=1)
        per_class = sklearn_metrics.multilabel_confusion_matrix(labels, decided)
        assert found == pytest.approx(
            {
                "accuracy": sklearn_metrics.accuracy_score(labels, decided),
                "balanced_accuracy": sklearn_metrics.balanced_accuracy_score(labels, decided),
                "auc": sklearn_metrics.roc_auc_score(labels, probabilities, multi_class="ovr", average="macro"),
                "f1": sklearn_metrics.f1_score(labels, decided, average="macro"),
                "sensitivity": sklearn_metrics.recall_score(labels, decided, average="macro"),
                "specificity": np.mean([m[0, 0] / (m[0, 0] + m[0, 1]) for m in per_class]),
                "loss": sklearn_metrics.log_loss(labels, probabilities),
            }
        )


def test_an_absent_class_makes_auc_nan_and_nothing_raise():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = scores(np.array([1, 1, 1]), two(0.2, 0.6, 0.1), positive=0)
    assert math.isnan(found["auc"])
    assert math.isnan(found["sensitivity"])  # there is no positive image to find
    assert found["balanced_accuracy"] == found["specificity"] == found["accuracy"] == pytest.approx(2 / 3)
    assert found["f1"] == 0
    three = scores(np.array([0, 1]), np.array([[0.8, 0.1, 0.1], [0.1, 0.8, 0.1]]), positive=None)
    assert math.isnan(three.pop("auc"))
    assert three.pop("loss") == pytest.approx(-math.log(0.8))
    assert set(three.values()) == {1.0}


def test_no_images_give_nan_everywhere():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = scores(np.array([], dtype=int), np.empty((0, 2)), positive=0)
        assert math.isnan(expected_calibration_error(np.array([], dtype=int), np.empty((0, 2))))
        assert math.isnan(brier(np.array([], dtype=int), np.empty((0, 2))))
    assert list(found) == NAMES
    assert all(math.isnan(value) for value in found.values())


def test_equal_probabilities_rank_no_better_than_chance():
    assert scores(np.array([0, 1, 1]), two(0.5, 0.5, 0.5), positive=0)["auc"] == 0.5


def test_a_network_that_diverged_has_nan_loss_and_auc():
    found = scores(np.array([0, 1]), two(math.nan, 0.4), positive=0)
    assert math.isnan(found["loss"])
    assert math.isnan(found["auc"])


def test_loss_is_clipped_where_a_probability_is_zero_and_taken_from_the_network_where_given():
    assert scores(np.array([0]), two(0.0), positive=0)["loss"] == pytest.approx(-math.log(1e-7))
    assert scores(np.array([0, 1]), two(0.0, 0.5), positive=0, sample_loss=np.array([3.0, 1.0]))["loss"] == 2.0


def test_small_integer_labels_do_not_overflow():
    labels = np.array([0, 15, 15], dtype=np.int8)
    assert scores(labels, np.eye(16)[[0, 15, 15]], positive=None)["accuracy"] == 1.0


def test_calibration_error_of_two_bins_by_hand():
    # Confidences 0.9, 0.9 (one right) and 0.6, 0.6 (both right): (2 * |0.5 - 0.9| + 2 * |1 - 0.6|) / 4.
    labels, probabilities = np.array([0, 1, 0, 1]), two(0.9, 0.9, 0.6, 0.4)
    assert expected_calibration_error(labels, probabilities) == pytest.approx(0.4)
    # One bin: accuracy 0.75, confidence 0.75.
    assert expected_calibration_error(labels, probabilities, bins=1) == pytest.approx(0)


def test_certainty_falls_into_the_last_bin_and_costs_its_mistakes():
    certain = np.array([[1, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1.0]])
    assert expected_calibration_error(np.array([0, 1, 1, 2]), certain) == pytest.approx(0.25)
    assert expected_calibration_error(np.array([0]), np.array([[1.0000001, 0]])) == pytest.approx(0, abs=1e-6)


def test_brier_equals_scikit_learn():
    generator = np.random.default_rng(9)
    assert brier(np.array([0, 1]), two(0.8, 0.4)) == pytest.approx((0.2**2 + 0.4**2) / 2)
    labels, probabilities = random_case(generator, images=50, classes=2)
    assert brier(labels, probabilities) == pytest.approx(sklearn_metrics.brier_score_loss(labels, probabilities[:, 1]))
    labels, probabilities = random_case(generator, images=50, classes=4)
    assert brier(labels, probabilities) == pytest.approx(sklearn_metrics.brier_score_loss(labels, probabilities))


def test_the_operating_point_is_midway_between_the_scores_it_separates():
    assert operating_point(np.array([0, 0, 1, 1]), two(0.9, 0.7, 0.3, 0.1), positive=0) == pytest.approx(0.5)
    assert operating_point(np.array([0, 0, 1, 1]), two(0.9, 0.8, 0.7, 0.1), positive=0) == pytest.approx(0.75)


def test_equally_good_operating_points_resolve_to_the_nearest_to_one_half_then_the_lower():
    # J is 1/2 above 0.2 (0.3, all but one negative spared) and above 0.8 (0.85).
    labels = np.array([0, 1, 0, 1])
    assert operating_point(labels, two(0.9, 0.8, 0.4, 0.2), positive=0) == pytest.approx(0.3)
    assert operating_point(labels, two(0.875, 0.625, 0.5, 0.25), positive=0) == 0.375
    assert operating_point(labels, two(0.875, 0.625, 0.375, 0.125), positive=0) == 0.25


def test_no_threshold_beats_the_operating_point():
    generator = np.random.default_rng(10)
    for _ in range(30):
        labels, probabilities = random_case(generator, images=25, classes=2)
        threshold = operating_point(labels, probabilities, positive=1)
        found = scores(labels, probabilities, 1, threshold)
        false_positive, true_positive, _ = sklearn_metrics.roc_curve(labels, probabilities[:, 1])
        best = max(0, (true_positive - false_positive).max())
        if best > 0:
            assert found["sensitivity"] + found["specificity"] - 1 == pytest.approx(best)


@pytest.mark.parametrize(
    ("labels", "probabilities"),
    [([0, 0, 0], (0.1, 0.5, 0.9)), ([1, 1], (0.1, 0.9)), ([0, 1, 1], (0.8, 0.8, 0.8)), ([0, 1], (0.1, 0.9))],
    ids=["no negative", "no positive", "all equal", "ranked backwards"],
)
def test_without_a_threshold_better_than_chance_one_half_remains(labels, probabilities):
    assert operating_point(np.array(labels), two(*probabilities), positive=0) == 0.5


def share_of_first(labels, probabilities):
    return {"share": float((labels == 0).mean())}


def test_whole_groups_are_resampled():
    # Two groups of 3 and 1 images: a resample holds group a twice (share 1), b twice (0) or both (0.75).
    seen = set()

    def statistic(labels, probabilities):
        seen.add((len(labels), float((labels == 0).mean())))
        return {"share": 0.0}

    bootstrap_intervals(np.array([0, 1, 0, 0]), np.zeros((4, 2)), ["a", "b", "a", "a"], statistic, seed=1, repeats=50)
    assert seen == {(6, 1.0), (4, 0.75), (2, 0.0)}


def test_intervals_of_single_image_groups_match_the_binomial_spread():
    labels = np.repeat([0, 1], 200)
    found = bootstrap_intervals(labels, np.zeros((400, 2)), np.arange(400), share_of_first, seed=3)["share"]
    half_width = 1.96 * math.sqrt(0.25 / 400)
    assert found.value == 0.5
    assert found.low == pytest.approx(0.5 - half_width, abs=0.006)
    assert found.high == pytest.approx(0.5 + half_width, abs=0.006)


def test_large_groups_widen_the_interval():
    labels = np.tile(np.repeat([0, 1], 20), 10)
    alone = bootstrap_intervals(labels, np.zeros((400, 2)), np.arange(400), share_of_first, seed=3)["share"]
    together = bootstrap_intervals(labels, np.zeros((400, 2)), np.arange(400) // 20, share_of_first, seed=3)["share"]
    assert together.high - together.low > 3 * (alone.high - alone.low)


def test_the_same_seed_gives_the_same_intervals_and_another_seed_others():
    generator = np.random.default_rng(11)
    labels, probabilities = random_case(generator, images=60, classes=2)
    groups = [f"patient {number // 3}" for number in range(60)]
    first, again, other = (evaluate_part(labels, probabilities, groups, 0, 0.5, seed) for seed in (1, 1, 2))
    assert first == again
    assert first != other
    assert list(first) == [*NAMES[:-1], "expected_calibration_error", "brier", "loss"]
    for name in NAMES:
        assert first[name].value == scores(labels, probabilities, 0)[name]
        assert first[name].low < first[name].value < first[name].high


def test_resamples_without_a_class_are_left_out_and_counted():
    # Of two groups with one class each, half of all resamples lack a class.
    found = evaluate_part(np.array([0, 1]), two(0.8, 0.4), ["a", "b"], positive=0, threshold=0.5, seed=4)
    assert (found["auc"].value, found["auc"].low, found["auc"].high) == (1, 1, 1)
    assert 900 < found["auc"].undefined_resamples < 1100
    assert found["accuracy"].undefined_resamples == 0


def test_a_single_group_has_no_interval():
    found = evaluate_part(np.array([0, 1, 1]), two(0.8, 0.4, 0.6), ["a"] * 3, positive=0, threshold=0.5, seed=4)
    assert found["accuracy"].value == pytest.approx(2 / 3)
    assert math.isnan(found["accuracy"].low)
    assert math.isnan(found["accuracy"].high)


def test_the_document_is_strict_json_with_every_metric_at_the_top():
    interval, unknown = Interval(0.85, 0.79, 0.9), Interval(math.nan, math.nan, math.nan, 2000)
    facts = {"threshold": 0.4, "positive_class": "COVID", "classes": ["COVID", "other"]}
    document = metrics_document({"accuracy": interval, "auc": unknown}, {"accuracy": interval}, 5, facts)
    assert json.loads(json.dumps(document, allow_nan=False)) == {
        "accuracy": {"value": 0.85, "interval": [0.79, 0.9]},
        "auc": {"value": None, "interval": [None, None], "undefined_resamples": 2000},
        "validation": {"accuracy": {"value": 0.85, "interval": [0.79, 0.9]}},
        "bootstrap": {"repeats": 2000, "level": 0.95, "seed": 5, "resampled": "groups"},
        **facts,
    }


def test_a_fact_cannot_replace_a_metric():
    with pytest.raises(ValueError, match=r"accuracy.*validation"):
        metrics_document({"accuracy": Interval(1, 1, 1)}, {}, 5, {"accuracy": 0, "validation": 0})

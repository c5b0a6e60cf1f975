import csv
import json
import os
import shutil

import numpy as np
import pytest

from trainable.dataset import ImageSet
from trainable.errors import InputError
from trainable.evaluate import check_evaluable, evaluate
from trainable.metrics import scores
from trainable.predict import Classifier
from trainable.retrain import FinalPaths
from trainable.split import read_split, write_split

pytestmark = pytest.mark.slow

SCORES = (
    "accuracy",
    "balanced_accuracy",
    "auc",
    "f1",
    "sensitivity",
    "specificity",
    "expected_calibration_error",
    "brier",
    "loss",
)


def silent(*_):
    pass


@pytest.fixture(scope="module")
def evaluated(retrained, drawn):
    """The run folder and what `evaluate` returned."""
    told = []
    returned = evaluate(drawn, retrained, {"study": "drawn"}, 5, lambda *progress: told.append(progress))
    assert told[-1][0] == "decoding test images"
    return retrained, returned


@pytest.fixture
def copy(retrained, tmp_path):
    """A run folder of its own, that was not evaluated yet; large files are shared by links."""
    shutil.copytree(retrained, tmp_path / "run", copy_function=os.link)
    paths = FinalPaths(tmp_path / "run" / "final")
    for path in [*(tmp_path / "run" / "arrays").glob("test*"), paths.metrics, paths.predictions]:
        path.unlink(missing_ok=True)
    yield tmp_path / "run"
    (tmp_path / "run" / "final" / "model.keras").unlink()


def document_of(run):
    def refuse(constant):
        raise AssertionError(f"{constant} is no JSON")

    return json.loads(FinalPaths(run / "final").metrics.read_text(encoding="utf-8"), parse_constant=refuse)


def predictions_of(run):
    with FinalPaths(run / "final").predictions.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def test_every_score_of_both_parts_has_its_value_and_its_interval(evaluated):
    run, returned = evaluated
    document = document_of(run)
    assert tuple(returned) == SCORES
    for part in (document, document["validation"]):
        for name in SCORES:
            value, (low, high) = part[name]["value"], part[name]["interval"]
            assert low <= high
            assert isinstance(value, float)
    for name, interval in returned.items():
        assert document[name]["value"] == interval.value
        assert document[name]["interval"] == [interval.low, interval.high]


def test_scores_are_those_of_the_saved_model_on_the_test_images_at_its_threshold(evaluated):
    run, _ = evaluated
    document, described = document_of(run), json.loads((run / "final" / "model.json").read_text())
    test = ImageSet.open(run / "arrays", "test")
    probabilities = Classifier.load(run / "final").probabilities(test.images)
    expected = scores(test.labels, probabilities, 1, described["threshold"])
    assert {name: document[name]["value"] for name in expected} == pytest.approx(expected)


def test_validation_scores_are_those_of_the_network_that_did_not_see_the_validation_images(evaluated):
    run, _ = evaluated
    validation = ImageSet.open(run / "arrays", "validation")
    given = np.load(run / "final" / "validation.npy")
    document = document_of(run)
    expected = scores(validation.labels, given, 1, document["threshold"])
    assert {name: document["validation"][name]["value"] for name in expected} == pytest.approx(expected)


def test_the_document_says_what_was_evaluated_and_how(evaluated, recipe):
    run, _ = evaluated
    document = document_of(run)
    assert document["study"] == "drawn"
    assert document["bootstrap"]["seed"] == 5
    assert document["classes"] == ["clear", "lesion"]
    assert document["positive_class"] == "lesion"
    assert document["configuration"] == recipe.hyperparameters.model_dump(mode="json")
    rows = read_split(run / "split.csv")
    for part in ("train", "validation", "test"):
        inside = [row for row in rows if row.part == part]
        assert sum(document["counts"]["images"][part].values()) == len(inside)
        assert document["counts"]["groups"][part] == len({row.group for row in inside})


def test_predictions_tell_every_test_and_validation_image_and_no_training_image(evaluated):
    run, _ = evaluated
    rows = predictions_of(run)
    assert list(rows[0]) == ["file", "group", "part", "class", "predicted", "probability_clear", "probability_lesion"]
    wanted = {(row.file, row.group, row.part, row.class_name) for row in read_split(run / "split.csv")}
    assert {(row["file"], row["group"], row["part"], row["class"]) for row in rows} == {
        each for each in wanted if each[2] != "train"
    }
    assert len(rows) == len({row["file"] for row in rows})
    threshold = document_of(run)["threshold"]
    for row in rows:
        assert row["predicted"] == ("lesion" if float(row["probability_lesion"]) >= threshold else "clear")
        assert float(row["probability_clear"]) + float(row["probability_lesion"]) == pytest.approx(1, abs=1e-5)
    test = [row for row in rows if row["part"] == "test"]
    hits = np.mean([row["predicted"] == row["class"] for row in test])
    assert document_of(run)["accuracy"]["value"] == pytest.approx(hits)


def test_evaluating_again_says_the_same(evaluated, copy, drawn):
    run, _ = evaluated
    evaluate(drawn, copy, {"study": "drawn"}, 5, silent)
    assert document_of(copy) == document_of(run)
    assert predictions_of(copy) == predictions_of(run)


def test_a_test_image_that_changed_or_vanished_is_refused(copy, drawn, tmp_path):
    shutil.copytree(drawn.path, tmp_path / "images")
    changed, vanished = [row.file for row in read_split(copy / "split.csv") if row.part == "test"][:2]
    (tmp_path / "images" / changed).write_bytes(b"another image")
    (tmp_path / "images" / vanished).unlink()
    with pytest.raises(InputError) as caught:
        evaluate(drawn.model_copy(update={"path": tmp_path / "images"}), copy, {}, 5, silent)
    assert [problem.split()[0].rstrip(":") for problem in caught.value.problems] == [changed, vanished]
    assert "changed since the split was made" in caught.value.problems[0]
    assert not FinalPaths(copy / "final").metrics.exists()
    assert not FinalPaths(copy / "final").predictions.exists()


def test_a_run_without_a_test_part_is_refused(copy, drawn):
    write_split(copy / "split.csv", [row for row in read_split(copy / "split.csv") if row.part != "test"])
    with pytest.raises(InputError, match="part `test` must hold images"):
        evaluate(drawn, copy, {}, 5, silent)


def test_a_model_that_was_exchanged_is_refused_before_any_test_image_is_opened(copy, drawn):
    (copy / "final" / "model.keras").unlink()
    (copy / "final" / "model.keras").write_bytes(b"PK another")
    with pytest.raises(InputError, match="its sha256 differs"):
        evaluate(drawn, copy, {}, 5, silent)
    assert not list((copy / "arrays").glob("test*"))


def test_what_is_lacking_is_told_all_at_once_without_a_look_at_a_test_image(copy, drawn, tmp_path):
    check_evaluable(drawn, copy)
    FinalPaths(copy / "final").validation.unlink()
    (copy / "arrays" / "validation.npy").unlink()
    moved = drawn.model_copy(update={"path": tmp_path / "moved"})
    with pytest.raises(InputError) as caught:
        check_evaluable(moved, copy)
    assert [problem.split(" must hold ")[0] for problem in caught.value.problems] == [
        str(copy / "arrays"),
        str(tmp_path / "moved"),
        str(copy / "final"),
    ]
    assert not list((copy / "arrays").glob("test*"))


def test_images_that_are_gone_are_no_problem_once_the_test_part_was_decoded(copy, drawn, tmp_path):
    moved = drawn.model_copy(update={"path": tmp_path / "moved"})
    with pytest.raises(InputError, match="test images, but"):
        check_evaluable(moved, copy)
    evaluate(drawn, copy, {"study": "drawn"}, 5, silent)
    before = document_of(copy)
    check_evaluable(moved, copy)
    evaluate(moved, copy, {"study": "drawn"}, 5, silent)
    assert document_of(copy) == before

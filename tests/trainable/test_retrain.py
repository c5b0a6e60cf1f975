import csv
import hashlib
import json
import math
from dataclasses import replace

import numpy as np
import pytest

from trainable.dataset import ImageSet, concatenate
from trainable.errors import TrialError
from trainable.metrics import operating_point, scores
from trainable.predict import Classifier
from trainable.retrain import FinalPaths, retrain, write_json


@pytest.fixture(scope="module")
def images(retrained):
    return tuple(ImageSet.open(retrained / "arrays", part) for part in ("train", "validation"))


def history_of(retrained):
    with FinalPaths(retrained / "final").history.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.mark.slow
def test_retraining_leaves_the_model_its_description_its_curves_and_its_validation_probabilities(retrained):
    names = {path.name for path in (retrained / "final").iterdir()}
    assert {"model.keras", "model.json", "history.csv", "validation.npy"} <= names
    assert not [name for name in names if name.startswith((".", "unfinished"))]


@pytest.mark.slow
def test_the_curves_are_those_of_every_epoch_at_the_given_learning_rates(retrained):
    rows = history_of(retrained)
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert [float(row["learning_rate"]) for row in rows] == pytest.approx([2e-3, 1e-3])
    for name in ("loss", "accuracy", "auc", "val_loss", "val_accuracy", "val_auc"):
        assert all(math.isfinite(float(row[name])) for row in rows), name


@pytest.mark.slow
def test_validation_probabilities_and_threshold_are_of_the_network_that_did_not_see_those_images(retrained, images):
    _, validation = images
    probabilities = np.load(retrained / "final" / "validation.npy", allow_pickle=False)
    assert probabilities.shape == (len(validation), 2)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)
    last = history_of(retrained)[-1]
    for name, value in scores(validation.labels, probabilities, 1).items():
        assert float(last[f"val_{name}"]) == pytest.approx(value, rel=1e-5)
    described = json.loads((retrained / "final" / "model.json").read_text())
    assert described["threshold"] == operating_point(validation.labels, probabilities, 1)


@pytest.mark.slow
def test_the_description_says_what_must_be_known_to_use_the_model(retrained, recipe, images):
    described = json.loads((retrained / "final" / "model.json").read_text())
    threshold, digest = described.pop("threshold"), described.pop("sha256")
    assert 0 < threshold < 1
    assert digest == hashlib.sha256((retrained / "final" / "model.keras").read_bytes()).hexdigest()
    train, validation = images
    assert described == {
        "classes": ["clear", "lesion"],
        "positive_class": "lesion",
        "image_size": 32,
        "colour": "grey",
        "max_pixels": 50_000_000,
        "architecture": "resnet50",
        "epochs": 2,
        "seed": 3,
        "learning_rates": list(recipe.learning_rates),
        "hyperparameters": recipe.hyperparameters.model_dump(mode="json"),
        "trained_on": {
            "images": len(train) + len(validation),
            "groups": len({*train.groups, *validation.groups}),
        },
    }


@pytest.mark.slow
def test_the_model_loaded_safely_gives_the_probabilities_of_a_network_trained_on_train_and_validation(
    retrained, recipe, images, networks, model_settings, tmp_path
):
    from trainable.training import Task, Training, predict

    # Nothing but these two parts is there, so nothing else can have been read.
    for part in ("train", "validation"):
        for ending in ("npy", "csv", "json"):
            (tmp_path / f"{part}.{ending}").symlink_to(retrained / "arrays" / f"{part}.{ending}")
    head_only = recipe.hyperparameters.model_copy(update={"freeze_depth": 17})
    quick = replace(recipe, model=model_settings, hyperparameters=head_only, positive=None)
    told = []
    paths = retrain(quick, tmp_path, tmp_path / "final", lambda *progress: told.append(progress))
    assert told == [(what, n, 2) for what in ("training on train", "training on train + validation") for n in (1, 2)]
    described = json.loads(paths.description.read_text())
    assert (described["positive_class"], described["threshold"]) == (None, 0.5)

    everything = concatenate(*images)
    network = networks.warm(head_only)
    task = Task(everything, None, positive=None, view_seed=recipe.view_seed)
    training = Training(network, head_only, task, recipe.seed, 2, learning_rates=recipe.learning_rates)
    for _ in range(2):
        training.run_epoch()
    expected = predict(network, everything.images)
    assert np.ptp(expected[:, 0]) > 0.01
    given = Classifier.load(tmp_path / "final").probabilities(everything.images)
    paths.model.unlink()  # 95 MB, and pytest keeps the folders of three runs
    np.testing.assert_allclose(given, expected, atol=1e-3)  # folded BatchNorms round otherwise
    on_validation = np.load(paths.validation)
    assert not np.allclose(given[-len(on_validation) :], on_validation, atol=1e-3)


def test_a_document_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "folder" / "document.json"
    write_json(path, {"class": "ätiologie", "value": 0.1})
    assert path.read_text(encoding="utf-8") == '{\n  "class": "ätiologie",\n  "value": 0.1\n}\n'
    for bad in ({"value": math.nan}, {"value": object()}):
        with pytest.raises((ValueError, TypeError)):
            write_json(path, bad)
    assert json.loads(path.read_text(encoding="utf-8"))["value"] == 0.1
    assert [each.name for each in path.parent.iterdir()] == ["document.json"]


@pytest.mark.slow
def test_where_memory_runs_out_the_final_model_is_trained_in_halves_of_batches(
    retrained, recipe, tmp_path, monkeypatch
):
    from trainable.network import Network

    step, told = Network.step, []

    def limited(network, inputs, labels, weights, dropout_seed, pieces=1):
        if len(labels) / pieces > 4:
            raise MemoryError
        return step(network, inputs, labels, weights, dropout_seed, pieces)

    monkeypatch.setattr(Network, "step", limited)
    short = replace(recipe, epochs=1)
    paths = retrain(short, retrained / "arrays", tmp_path, lambda *progress: told.append(progress))
    assert {what for what, *_ in told} == {
        "training on train, batches in halves for want of memory",
        "training on train + validation, batches in halves for want of memory",
    }
    probabilities = np.load(paths.validation)  # others than of whole batches: BatchNorms see halves
    assert probabilities.shape == np.load(retrained / "final" / "validation.npy").shape
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)

    small = replace(short, hyperparameters=recipe.hyperparameters.model_copy(update={"batch_size": 16}))
    with pytest.raises(TrialError, match="a batch of 16 must fit into memory to train the final model"):
        retrain(small, retrained / "arrays", tmp_path, lambda *_: None)

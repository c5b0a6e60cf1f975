import csv

import numpy as np
import pytest
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from trainable.errors import InputError
from trainable.synthetic import draw_study


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    return folder, draw_study(folder, images_per_class=60, image_size=32, seed=5)


def contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def group_rows(folder):
    with (folder / "groups.csv").open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def test_every_class_gets_its_images_and_every_image_its_group(study):
    folder, images = study
    assert images == folder / "images"
    files = {path.relative_to(images).as_posix() for path in images.glob("*/*.png")}
    assert {row["file"] for row in group_rows(folder)} == files
    assert [sum(file.startswith(name) for file in files) for name in ("clear/", "lesion/")] == [60, 60]
    assert Image.open(images / min(files)).size == (32, 32)


def test_a_patient_has_several_slices_of_one_class(study):
    classes = {}
    for row in group_rows(study[0]):
        classes.setdefault(row["group"], []).append(row["file"].split("/")[0])
    assert all(len(set(names)) == 1 for names in classes.values())
    assert max(len(names) for names in classes.values()) == 5


def test_the_same_seed_draws_the_same_files_and_another_seed_others(study, tmp_path):
    draw_study(tmp_path / "small", 4, 32, seed=5)
    draw_study(tmp_path / "again", 4, 32, seed=5)
    draw_study(tmp_path / "other", 4, 32, seed=6)
    assert contents(tmp_path / "small") == contents(tmp_path / "again")
    assert contents(tmp_path / "small") != contents(tmp_path / "other")


def test_drawing_over_the_same_study_is_harmless_and_over_another_is_refused(tmp_path):
    draw_study(tmp_path, 4, 32, seed=5)
    before = contents(tmp_path)
    draw_study(tmp_path, 4, 32, seed=5)
    assert contents(tmp_path) == before
    with pytest.raises(InputError, match="must be empty or hold the same study"):
        draw_study(tmp_path, 3, 32, seed=5)


def test_lesions_are_seen_in_the_picture_and_not_in_its_mean_brightness(study):
    folder, images = study
    rows = group_rows(folder)
    pixels = np.array([np.asarray(Image.open(images / row["file"]), dtype=float).ravel() for row in rows])
    labels = np.array([row["file"].startswith("lesion/") for row in rows])
    assert 0.4 < roc_auc_score(labels, pixels.mean(axis=1)) < 0.65
    darkest, brightest = np.percentile(pixels, [10, 99], axis=1, keepdims=True)
    relative = (pixels - darkest) / (brightest - darkest)
    scores = cross_val_predict(
        make_pipeline(StandardScaler(), LogisticRegression(C=0.1)),
        np.array([np.histogram(image, bins=12, range=(-0.1, 1.1))[0] for image in relative]),
        labels,
        groups=[row["group"] for row in rows],
        cv=GroupKFold(4),
        method="decision_function",
    )
    assert roc_auc_score(labels, scores) > 0.8

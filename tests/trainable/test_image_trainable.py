import subprocess
import sys
from types import SimpleNamespace

import pytest

from search.config import Resources, StudyConfig
from trainable import ImageTrainable
from trainable.errors import InputError
from trainable.hyperparameters import Hyperparameters
from trainable.settings import DataSettings, ModelSettings


def config(drawn, **training):
    """What a driver hands over: a study configuration with this trainable's sections."""
    return SimpleNamespace(
        data=drawn,
        model=ModelSettings(weights="random"),
        training=Hyperparameters(**{"freeze_depth": 5, "batch_size": 8, **training}),
        resources=Resources(),
        seed=1,
    )


def silent(*_):
    pass


def test_a_study_file_has_a_section_for_images_network_and_training():
    assert ImageTrainable.sections == {"data": DataSettings, "model": ModelSettings, "training": Hyperparameters}


def test_an_objective_may_be_any_score_of_either_part():
    assert len(ImageTrainable.metrics) == 14
    assert {"val_auc", "val_accuracy", "auc"} <= ImageTrainable.metrics.keys()
    assert [name for name, better in ImageTrainable.metrics.items() if better == "minimize"] == ["loss", "val_loss"]


def settled(precision, units, monkeypatch, earlier=None):
    """The precision that a study gets; `units`: whether processor and GPUs compute in bfloat16."""
    monkeypatch.setattr("trainable.image_trainable.computes_bfloat16", lambda gpus: units["gpus" if gpus else "cpu"])
    before = study(model={"weights": "random", "precision": precision}, resources={"gpus_per_trial": units["wanted"]})
    after = ImageTrainable().settled(before, earlier)
    changed = before.model_copy(update={"model": before.model.model_copy(update={"precision": after.model.precision})})
    assert after == changed
    return after.model.precision


def study(**sections):
    return StudyConfig.of(ImageTrainable.sections).parse({"data": {"path": "images"}, **sections})


@pytest.mark.parametrize("wanted", [0, 0.5])
@pytest.mark.parametrize("precision", ["float32", "mixed_bfloat16"])
def test_a_precision_that_was_asked_for_is_left_alone(monkeypatch, precision, wanted):
    for units in ({"cpu": True, "gpus": True}, {"cpu": False, "gpus": False}):
        assert settled(precision, {**units, "wanted": wanted}, monkeypatch) == precision


@pytest.mark.parametrize(
    ("units", "expected"),
    [
        ({"cpu": True, "gpus": False, "wanted": 0}, "mixed_bfloat16"),
        ({"cpu": False, "gpus": True, "wanted": 0}, "float32"),
        ({"cpu": False, "gpus": True, "wanted": 0.5}, "mixed_bfloat16"),
        ({"cpu": True, "gpus": False, "wanted": 1}, "float32"),
    ],
)
def test_auto_is_the_precision_that_those_who_will_compute_have_units_for(monkeypatch, units, expected):
    assert settled("auto", units, monkeypatch) == expected


@pytest.mark.parametrize("begun", ["float32", "mixed_bfloat16"])
def test_a_study_that_was_begun_keeps_its_precision_on_another_machine(monkeypatch, begun):
    earlier = StudyConfig.parse(study(model={"weights": "random", "precision": begun}).dump())
    for has in (True, False):
        assert settled("auto", {"cpu": has, "gpus": has, "wanted": 0}, monkeypatch, earlier) == begun


def test_trials_are_told_the_fixed_settings_in_plain_values(drawn, tmp_path):
    prepared = ImageTrainable().prepare(config(drawn, dropout=0.25), {}, tmp_path, silent)
    told = prepared.context["training"]
    assert Hyperparameters.model_validate(told) == config(drawn, dropout=0.25).training
    assert all(isinstance(value, (str, int, float, list)) for value in told.values())


@pytest.mark.parametrize(("gpus", "idle"), [(0, None), (0.5, None), (1, None), (2, "1 of the 2"), (4, "3 of the 4")])
def test_gpus_that_a_trial_leaves_idle_are_spoken_of_before_the_search(drawn, tmp_path, gpus, idle):
    asked = config(drawn)
    asked.resources = Resources(gpus_per_trial=gpus)
    remarks = ImageTrainable().prepare(asked, {}, tmp_path, silent).remarks
    assert remarks == () if idle is None else idle in " ".join(remarks)


@pytest.mark.parametrize(
    ("fixed", "varied", "complaint"),
    [
        ({"freeze_depth": 6}, {}, "but got 6"),
        ({}, {"freeze_depth": 7}, "but got 7"),
        ({"freeze_depth": 6}, {"freeze_depth": 5}, None),  # what is varied is not what is fixed
        ({}, {"batch_size": 4096}, "but got 4096"),
    ],
)
def test_the_largest_value_that_a_trial_may_take_is_checked(drawn, tmp_path, fixed, varied, complaint):
    if complaint is None:
        ImageTrainable().prepare(config(drawn, **fixed), varied, tmp_path, silent)
    else:
        with pytest.raises(InputError, match=complaint):
            ImageTrainable().prepare(config(drawn, **fixed), varied, tmp_path, silent)


def test_describing_and_preparing_a_study_starts_neither_ray_nor_tensorflow():
    code = """
import sys
from trainable import ImageTrainable
from trainable.preparation import prepare
ImageTrainable().sections, ImageTrainable().metrics
print(*({"ray", "tensorflow", "keras"} & set(sys.modules)))
"""
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert told.stdout.split() == []

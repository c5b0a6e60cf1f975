import math

import pytest
from pydantic import ValidationError

from trainable.hyperparameters import Hyperparameters


@pytest.mark.parametrize(
    ("name", "fits", "does_not"),
    [
        ("learning_rate", [1e-12, 10], [0, -1e-3, 10.1, math.nan, math.inf]),
        ("batch_size", [1, 4096], [0, 4097, 1.5]),
        ("augmentation_strength", [0, 1], [-0.1, 1.1, math.nan]),
        ("freeze_depth", [0, 400], [-1, 0.5]),
        ("optimizer", ["adam", "sgd", "rmsprop"], ["adamw", "Adam"]),
        ("momentum", [0, 0.999], [-0.1, 1]),
        ("weight_decay", [0, 1], [-0.1, 1.1]),
        ("backbone_learning_rate_factor", [0.01, 10], [0, 11]),
        ("dropout", [0, 0.99], [-0.1, 1]),
        ("head_width", [0, 8192], [-1, 8193]),
        ("label_smoothing", [0, 0.99], [-0.1, 1]),
        ("class_weights", ["balanced", "none"], ["equal", None]),
        ("plateau_patience", [0, 5], [-1]),
        ("plateau_factor", [0.1, 0.9], [0, 1]),
        ("early_stopping_patience", [0, 5], [-1]),
        ("transforms", [(), ("zoom", "brightness")], [("mirror",), "zoom"]),
        ("views", [0, 8], [-1]),
        ("learning_rte", [], [0.1]),
    ],
)
def test_every_hyperparameter_keeps_its_bounds(name, fits, does_not):
    for value in fits:
        assert getattr(Hyperparameters(**{name: value}), name) == value
    for value in does_not:
        with pytest.raises(ValidationError) as caught:
            Hyperparameters(**{name: value})
        assert {each["loc"][0] for each in caught.value.errors()} == {name}


def test_every_hyperparameter_has_a_default_that_fits_and_an_explanation():
    defaults = Hyperparameters()
    assert Hyperparameters.model_validate(defaults.model_dump()) == defaults
    assert all(field.description for field in Hyperparameters.model_fields.values())


def test_hyperparameters_come_back_from_plain_values_and_do_not_change():
    chosen = Hyperparameters(transforms=("rotation", "zoom"), optimizer="sgd", views=4)
    assert Hyperparameters.model_validate(chosen.model_dump(mode="json")) == chosen
    with pytest.raises(ValidationError, match="frozen"):
        chosen.views = 5


def test_all_problems_are_told_at_once():
    with pytest.raises(ValidationError) as caught:
        Hyperparameters(learning_rate=-1, batch_size=0, dropout=2)
    assert [each["loc"][0] for each in caught.value.errors()] == ["learning_rate", "batch_size", "dropout"]


def test_the_default_transforms_are_flips_zoom_and_shift():
    assert Hyperparameters().transforms == ("flip_horizontal", "flip_vertical", "zoom", "shift")

import os
from pathlib import Path

import pytest
from pydantic import ValidationError

from trainable.settings import DataSettings, GroupPattern, ModelSettings, SplitShares


def complaints(caught):
    return "\n".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in caught.value.errors())


def test_shares_that_do_not_add_up_are_refused_with_their_sum():
    with pytest.raises(ValidationError) as caught:
        SplitShares(train=0.7, validation=0.2, test=0.2)
    assert "`train + validation + test == 1` must hold, but they add up to 1.1" in complaints(caught)


@pytest.mark.parametrize(
    "shares", [(0.7, 0.15, 0.15), (0.8, 0.2, 0), (1 / 3, 1 / 3, 1 / 3), (0.1, 0.2, 0.7), (0.6, 0.3, 0.1)]
)
def test_shares_that_add_up_within_rounding_are_accepted(shares):
    train, validation, test = shares
    assert SplitShares(train=train, validation=validation, test=test).test == test


@pytest.mark.parametrize("shares", [(1.0, 0.0, 0.0), (0.0, 0.5, 0.5), (0.9, 0.2, -0.1), (float("nan"), 0.5, 0.5)])
def test_train_and_validation_must_have_something(shares):
    train, validation, test = shares
    with pytest.raises(ValidationError):
        SplitShares(train=train, validation=validation, test=test)


@pytest.mark.parametrize(
    ("pattern", "complaint"),
    [
        ("Patient_[0-9]+", r"must hold one \(group\) that names the group"),
        ("Patient_(", "must be a regular expression"),
    ],
)
def test_a_group_pattern_must_name_a_group(pattern, complaint):
    with pytest.raises(ValidationError, match=complaint):
        GroupPattern(pattern=pattern)


def test_groups_are_a_word_a_pattern_or_a_file(tmp_path):
    assert DataSettings(path=tmp_path).groups == "near_duplicates"
    assert DataSettings(path=tmp_path, groups="none").groups == "none"
    assert DataSettings(path=tmp_path, groups={"pattern": r"p(\d+)"}).groups == GroupPattern(pattern=r"p(\d+)")
    assert DataSettings(path=tmp_path, groups=str(tmp_path / "groups.csv")).groups == tmp_path / "groups.csv"


def test_paths_become_absolute_once_so_that_any_folder_may_resume(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/somebody")
    data = DataSettings(path="images", groups="../groups.csv", split_file="~/split.csv")
    assert data.path == tmp_path / "images"
    assert data.groups == tmp_path / ".." / "groups.csv"
    assert data.split_file == Path("/home/somebody/split.csv")
    assert ModelSettings(weights="some.weights.h5").weights == tmp_path / "some.weights.h5"
    monkeypatch.chdir(os.sep)
    assert DataSettings.model_validate(data.model_dump(mode="json")) == data


@pytest.mark.parametrize(
    ("setting", "fits", "does_not"),
    [
        ("image_size", [32, 64, 1024], [31, 1025, 64.5, "large"]),
        ("colour", ["grey", "rgb"], ["gray", "L"]),
        ("max_unreadable_share", [0, 1], [-0.01, 1.01, float("nan")]),
        ("max_pixels", [1], [0, -1]),
        ("near_duplicate_distance", [0, 16], [-1, 17]),
        ("positive_class", [None, "COVID"], [7]),
        ("unknown", [], [1]),
    ],
)
def test_image_settings_keep_their_bounds(tmp_path, setting, fits, does_not):
    for value in fits:
        assert getattr(DataSettings(path=tmp_path, **{setting: value}), setting) == value
    for value in does_not:
        with pytest.raises(ValidationError) as caught:
            DataSettings(path=tmp_path, **{setting: value})
        assert complaints(caught).startswith(setting)


@pytest.mark.parametrize(
    ("setting", "fits", "does_not"),
    [
        ("architecture", ["resnet50", "resnet101", "mobilenetv2", "vgg16", "densenet121"], ["resnet", "ResNet50"]),
        ("freeze_unit", ["stage", "block"], ["layer"]),
        ("batch_norm", ["auto", "frozen", "frozen_prefix", "train"], ["off"]),
        ("precision", ["float32", "mixed_bfloat16"], ["float16"]),
        ("xla", [None, True, False], ["auto"]),
        ("weights_sha256", [None, "0" * 64, "9af" * 21 + "b"], ["0" * 63, "0" * 65, "A" * 64]),
        ("unknown", [], [1]),
    ],
)
def test_network_settings_keep_their_bounds(setting, fits, does_not):
    for value in fits:
        assert getattr(ModelSettings(**{setting: value}), setting) == value
    for value in does_not:
        with pytest.raises(ValidationError) as caught:
            ModelSettings(**{setting: value})
        assert complaints(caught).startswith(setting)


@pytest.mark.parametrize(
    ("weights", "batch_norm", "expected"),
    [
        ("imagenet", "auto", "frozen"),
        ("some.weights.h5", "auto", "frozen"),
        ("random", "auto", "train"),
        ("random", "train", "train"),
        ("imagenet", "frozen_prefix", "frozen_prefix"),
        ("imagenet", "train", "train"),
    ],
)
def test_the_batch_norm_policy_follows_the_weights_unless_it_is_set(weights, batch_norm, expected):
    assert ModelSettings(weights=weights, batch_norm=batch_norm).batch_norm_policy == expected


@pytest.mark.parametrize("batch_norm", ["frozen", "frozen_prefix"])
def test_random_weights_with_frozen_statistics_are_refused(batch_norm):
    with pytest.raises(ValidationError, match=rf"must hold when `weights: random`.* got batch_norm: {batch_norm}"):
        ModelSettings(weights="random", batch_norm=batch_norm)


def test_settings_do_not_change_once_read_and_come_back_from_plain_values(tmp_path):
    data = DataSettings(path=tmp_path, groups=GroupPattern(pattern="p(.)"), split=SplitShares(train=0.8, test=0.05))
    model = ModelSettings(weights=tmp_path / "a.weights.h5", xla=True)
    for settings in (data, model):
        assert type(settings).model_validate(settings.model_dump(mode="json")) == settings
        with pytest.raises(ValidationError, match="frozen"):
            settings.path = tmp_path

"""The study files that come with Thawline say what they claim to say."""

import json
import re
import sys
from pathlib import Path

import jsonschema
import pytest
import yaml

from search import StudyConfig, cli
from search.paths import shipped_study
from trainable import ImageTrainable

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
SHIPPED = sorted(path.stem for path in CONFIGS.glob("*.yaml"))


def load(name, *overrides):
    return StudyConfig.load(shipped_study(name), overrides, ImageTrainable.sections)


def parse(text):
    """A study file's text, sections that hold nothing left out."""
    document = {key: value for key, value in yaml.safe_load(text).items() if value is not None}
    return StudyConfig.of(ImageTrainable.sections).parse(document)


@pytest.fixture(scope="module")
def schema():
    return StudyConfig.of(ImageTrainable.sections).model_json_schema()


@pytest.fixture
def starter():
    return shipped_study("starter").read_text(encoding="utf-8")


def test_all_that_is_promised_is_shipped():
    assert set(SHIPPED) == {"ct_resnet50", "ct_resnet50_fast", "quickstart", "seed_paper", "starter"}


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_study_loads_and_is_named_after_its_file(name):
    config = load(name)
    assert config.name == name
    assert config.space


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_study_is_what_editors_complete(name, schema):
    study = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text(encoding="utf-8"))
    assert list(jsonschema.validators.validator_for(schema)(schema).iter_errors(study)) == []


@pytest.mark.parametrize("wrong", [{"budgett": {}}, {"budget": {"trials": 0}}, {"data": {"colour": "green"}}])
def test_the_schema_marks_what_a_search_would_refuse(schema, starter, wrong):
    document = yaml.safe_load(starter)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**document, **wrong}, schema)


def test_the_starters_defaults_are_the_defaults(starter):
    without = "\n".join(line for line in starter.splitlines() if "# default" not in line)
    assert starter.count("# default") > 20
    assert parse(without).dump() == parse(starter).dump()


def test_the_starter_shows_every_section(starter):
    sections = set(StudyConfig.model_fields) - {"name", "storage", "storage_copy", "record", "first_points"}
    assert set(yaml.safe_load(starter)) == sections


def test_what_the_starter_suggests_in_comments_is_allowed_too(starter):
    suggestion = re.compile(r"^( *)# ((?:[a-z_0-9]+:|  - ).*)$", re.MULTILINE)
    assert len(suggestion.findall(starter)) > 7
    text = suggestion.sub(r"\1\2", starter).replace("0123…", "0123456789abcdef" * 4)
    document = yaml.safe_load(text)
    document["space"]["optimizer"] = {"type": "choice", "values": ["adam", "sgd"]}
    config = StudyConfig.of(ImageTrainable.sections).parse(document)
    assert config.budget.wall_seconds == 3600
    assert config.first_points[0]["freeze_depth"] == 4


def test_init_writes_the_starter_and_the_schema_beside_it(tmp_path, monkeypatch, starter, schema):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["thawline", "init", "lungs.yaml"])
    assert cli._exit_code() == 0
    first, rest = (tmp_path / "lungs.yaml").read_text(encoding="utf-8").split("\n", 1)
    assert first == "# yaml-language-server: $schema=lungs.schema.json"
    assert rest == starter
    assert json.loads((tmp_path / "lungs.schema.json").read_text(encoding="utf-8")) == schema
    assert cli._exit_code() == 2  # what is there stays


def test_the_real_study_searches_the_four_hyperparameters():
    assert set(load("ct_resnet50").space) == {"learning_rate", "batch_size", "augmentation_strength", "freeze_depth"}


def test_the_fast_study_searches_the_same_space_in_as_many_passes():
    fast, whole = load("ct_resnet50_fast"), load("ct_resnet50")
    assert fast.space == whole.space
    assert fast.budget.epochs == whole.budget.epochs * fast.training.epochs_per_pass
    assert (fast.budget.trials, fast.final) == (whole.budget.trials, whole.final)


def test_the_published_protocol_is_kept():
    config = load("seed_paper")
    assert (config.data.image_size, config.data.groups, config.data.split.test) == (64, "none", 0.2)
    assert (config.model.architecture, config.model.weights) == ("resnet50", "imagenet")
    assert (config.training.optimizer, config.training.plateau_patience > 0) == ("adam", True)
    assert set(config.training.transforms) == {"flip_horizontal", "flip_vertical", "zoom", "shift"}
    assert (config.space["learning_rate"].ends, config.space["batch_size"].ends) == ((0.003,), (64,))
    assert (config.budget.trials, config.budget.epochs, config.pruner.name) == (1, 50, "none")


def test_shares_of_a_shipped_split_can_be_overridden():
    assert load("ct_resnet50", "data.split.train=0.6", "data.split.test=0.25").data.split.test == 0.25

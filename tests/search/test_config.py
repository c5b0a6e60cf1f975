import math
import pickle
from pathlib import Path
from typing import Annotated, Literal

import pytest
import yaml
from pydantic import BaseModel, ConfigDict, Field

from search.config import Objective, StudyConfig, differences
from search.errors import ConfigurationError
from search.paths import shipped_study
from search.safe_yaml import read_yaml, to_yaml
from trainable import ImageTrainable

REAL = {"type": "float", "low": 0.1, "high": 0.5}


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Data(Strict):
    path: str
    share: Annotated[float, Field(gt=0, lt=1)] = 0.5


class Training(Strict):
    rate: Annotated[float, Field(gt=0, le=1)] = 0.1
    width: int = 8
    optimizer: Literal["adam", "sgd"] = "adam"


SECTIONS = {"data": Data, "training": Training}


def problems(document, *overrides, sections=None):
    cls = StudyConfig.of(sections) if sections else StudyConfig
    with pytest.raises(ConfigurationError) as caught:
        cls.parse(document, overrides)
    assert str(caught.value) == "\n".join(caught.value.problems)
    return caught.value.problems


def written(tmp_path, text):
    path = tmp_path / "it.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_study_needs_to_say_nothing():
    config = StudyConfig.parse({})
    assert (config.budget.trials, config.objective.metric, config.space) == (24, "val_auc", {})


def test_problems_of_every_kind_are_told_together():
    assert problems(
        {
            "bugdet": {},
            "seed": -1,
            "data": {"share": 2},
            "training": {"ratte": 1},
            "objective": {"direction": "up"},
            "budget": {"epochs": 2.5, "trails": 3},
            "sampler": {"name": "grid"},
            "space": {
                "rate": REAL,
                "optimizer": {"type": "choice", "values": ["adam", "lion"]},
                "witdh": {"type": "int", "low": 1, "high": 2, "when": {"rate": 0.7}},
            },
            "first_points": [{"rate": 0.1}, {"rate": 7, "height": 1}],
        },
        "nonsense",
        "seed.x=1",
        "resources.cpus_per_trial=0",
        sections=SECTIONS,
    ) == [
        "--set nonsense: must read section.key=value",
        "--set seed.x=1: `seed` must be a section, but is -1",
        "seed: must be greater than or equal to 0, but got -1",
        "data.path: must be given",
        "data.share: must be less than 1, but got 2",
        "training.ratte: unknown key; did you mean `rate`?",
        "objective.direction: must be 'maximize' or 'minimize', but got 'up'",
        "budget.epochs: must be a valid integer, got a number with a fractional part, but got 2.5",
        "budget.trails: unknown key; did you mean `trials`?",
        "resources.cpus_per_trial: must be greater than 0, but got 0",
        "bugdet: unknown key; did you mean `budget`?",
        "space.witdh.when.rate: must be a value that `rate` can take, but got 0.7",
        "first_points.1.height: not in the space",
        "first_points.1.rate: must lie in the range given, but got 7",
        "space.rate: the grid sampler needs `step` or a choice",
        "space.optimizer: must be 'adam' or 'sgd', but got 'lion'",
        "space.witdh: unknown hyperparameter; did you mean `width`?",
    ]


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ({"space": {"a": {"type": "float", "low": 1}}}, ["space.a.high: must be given"]),
        ({"space": {"a": {"low": 1}}}, ["space.a: must have a `type`: float, int or choice"]),
        ({"space": {"a": {**REAL, "hihg": 1}}}, ["space.a.hihg: unknown key; did you mean `high`?"]),
        ({"space": {"a": {**REAL, "high": 0}}}, ["space.a: `low <= high` must hold, but got (low=0.1, high=0)"]),
        ({"space": [1]}, ["space: must be a valid dictionary, but got [1]"]),
        ({"first_points": 3}, ["first_points: must be a valid list, but got 3"]),
        ({"first_points": ["a"]}, ["first_points.0: must be a valid dictionary, but got 'a'"]),
        (
            {"pruner": {"reduction_factor": 1}},
            ["pruner.reduction_factor: must be greater than or equal to 2, but got 1"],
        ),
        (
            {"pruner": {"name": "median", "variant": "promotion"}, "qqq": 1},
            [
                "pruner: variant `promotion` needs the name `successive_halving`, but got 'median'",
                "qqq: unknown key; known: " + ", ".join(StudyConfig.model_fields),
            ],
        ),
        ({"budget": {"wall_seconds": math.inf}}, ["budget.wall_seconds: must be a finite number, but got inf"]),
        (
            {"resources": {"gpus_per_trial": 1.5}},
            ["resources.gpus_per_trial: must be a whole number, or below 1 for a share of one GPU, but got 1.5"],
        ),
        ({"qqq": 1}, ["qqq: unknown key; known: " + ", ".join(StudyConfig.model_fields)]),
        ({1: 2}, ["1: Keys should be strings, but got 1"]),
        ([1], ["a study file must hold `key: value` lines, but got list"]),
        (None, ["a study file must hold `key: value` lines, but got NoneType"]),
    ],
)
def test_a_problem_says_where_what_must_hold_and_what_came(document, expected):
    assert problems(document) == expected


def test_a_point_is_named_by_its_own_place_even_after_a_broken_one():
    found = problems({"space": {"a": REAL}, "first_points": [{"a": []}, {"a": 0.2}, {"a": 0.6}]})
    assert "first_points.2.a: must lie in the range given, but got 0.6" in found
    assert not any(problem.startswith("first_points.1") for problem in found)


def test_a_broken_range_does_not_make_conditions_and_points_on_it_look_broken():
    broken = {"type": "int", "low": 2, "high": 1}
    space = {"a": broken, "b": {**REAL, "when": {"a": 1}}}
    assert problems({"space": space, "first_points": [{"a": 1}]}) == [
        "space.a: `low <= high` must hold, but got (low=2, high=1)"
    ]


@pytest.mark.parametrize(
    ("parameter", "valid"),
    [
        ({"type": "float", "low": 0.2, "high": 0.5, "step": 0.1}, True),
        ({"type": "int", "low": 1, "high": 3}, True),
        ({"type": "choice", "values": ["a", "b"]}, True),
        ({"type": "float", "low": 0.2, "high": 0.2}, True),
        (REAL, False),
        ({"type": "float", "low": 0.1, "high": 0.5, "log": True}, False),
    ],
)
def test_a_grid_needs_ranges_with_steps(parameter, valid):
    document = {"space": {"a": parameter}, "sampler": {"name": "grid"}}
    if valid:
        assert StudyConfig.parse(document).sampler.name == "grid"
    else:
        assert problems(document) == ["space.a: the grid sampler needs `step` or a choice"]


def test_a_range_may_reach_as_far_as_the_trainable_can_go_and_no_farther():
    def parse(high):
        document = {"data": {"path": "x"}, "space": {"rate": {"type": "float", "low": 0.5, "high": high}}}
        return StudyConfig.of(SECTIONS).parse(document)

    assert parse(1).space["rate"].high == 1
    with pytest.raises(ConfigurationError, match=r"^space.rate: must be less than or equal to 1, but got 1.5$"):
        parse(1.5)


def test_a_file_that_is_not_there_or_not_text_is_refused(tmp_path):
    with pytest.raises(ConfigurationError, match=r"it.yaml: must be a readable study file, but No such file"):
        StudyConfig.load(tmp_path / "it.yaml")
    with pytest.raises(ConfigurationError, match="Is a directory"):
        StudyConfig.load(tmp_path)
    (tmp_path / "it.yaml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigurationError, match="must be YAML, but 'utf-8' codec"):
        StudyConfig.load(tmp_path / "it.yaml")


def test_a_number_may_have_an_exponent_without_a_dot(tmp_path):
    config = StudyConfig.load(
        written(
            tmp_path, "space: {a: {type: choice, values: [1e-3, 1E2, -5e-1, .5e1, e1, 1e]}}\nfirst_points: [{a: 1e-3}]"
        )
    )
    assert config.space["a"].values == [0.001, 100.0, -0.5, 5.0, "e1", "1e"]
    assert [type(value) for value in config.space["a"].values] == [float] * 4 + [str] * 2
    assert config.first_points == [{"a": 0.001}]


def test_what_is_written_reads_back_equal(tmp_path):
    shared = ["one", 2]
    document = {
        "text": ["1e-3", "1e5", "12", "yes", "2024-01-01", "", "a: b", "ü\n", "&x", "~", ".5e1"],
        "numbers": [1e-05, 1e300, 0.1 + 0.2, 3, -0.0, 5e-324],
        "twice": shared,
        "again": {"deep": shared},
        "nothing": None,
        "truth": [True, False],
    }
    read = read_yaml(written(tmp_path, to_yaml(document)))
    assert read == document
    assert [type(value) for value in read["text"]] == [str] * len(document["text"])
    assert list(read) == list(document)


def test_a_study_is_named_after_its_file_unless_it_says_otherwise(tmp_path):
    path = written(tmp_path, "seed: 1")
    assert StudyConfig.load(path).name == "it"
    assert StudyConfig.load(path, ["name=other"]).name == "other"
    assert StudyConfig.load(written(tmp_path, "name: own")).name == "own"


@pytest.mark.parametrize(
    ("override", "read", "value"),
    [
        ("budget.trials=3", lambda c: c.budget.trials, 3),
        ("budget.wall_seconds=1e3", lambda c: c.budget.wall_seconds, 1000.0),
        ("sampler.constant_liar=false", lambda c: c.sampler.constant_liar, False),
        ("resources.address=host:1", lambda c: c.resources.address, "host:1"),
        ("data.deep.er={a: [1, x]}", lambda c: c.data, {"path": "p", "deep": {"er": {"a": [1, "x"]}}}),
        ("data.path=a=b", lambda c: c.data, {"path": "a=b"}),
        ("data.path=", lambda c: c.data, {"path": None}),
        ("data.path=[half", lambda c: c.data, {"path": "[half"}),
        (" seed = 4 ", lambda c: c.seed, 4),
    ],
)
def test_an_override_writes_one_value_as_yaml(override, read, value):
    config = StudyConfig.parse({"data": {"path": "p"}, "budget": {"trials": 9}}, [override])
    assert read(config) == value


def test_later_overrides_win():
    assert StudyConfig.parse({}, ["seed=1", "seed=2"]).seed == 2


def test_differences_are_told_line_by_line():
    old = {"seed": 1, "budget": {"trials": 3, "epochs": 9}, "gone": 0, "same": [1, {"a": 2}], "kind": {"a": 1}}
    new = {"seed": 1, "budget": {"trials": 4, "epochs": 9}, "came": {"x": 1}, "same": [1, {"a": 2}], "kind": "b"}
    assert differences(old, new) == [
        "budget.trials: 3 -> 4",
        "gone: 0 -> None",
        "kind: {'a': 1} -> 'b'",
        "came: None -> {'x': 1}",
    ]
    assert differences(old, old) == []


FULL = {
    "name": "it",
    "seed": 5,
    "storage": "/somewhere",
    "data": {"path": "x", "share": 0.25},
    "training": {"width": 16},
    "space": {
        "rate": {"type": "float", "low": 1e-5, "high": 0.1, "log": True},
        "width": {"type": "int", "low": 8, "high": 32, "step": 8, "when": {"optimizer": ["sgd"]}},
        "optimizer": {"type": "choice", "values": ["adam", "sgd"]},
    },
    "first_points": [{"rate": 1 / 30, "optimizer": "sgd"}],
    "objective": {"metric": "val_loss", "direction": "minimize"},
    "sampler": {"name": "cmaes", "startup_trials": 0},
    "pruner": {"name": "none"},
    "budget": {"trials": 7, "epochs": 1, "wall_seconds": 0.1 + 0.2},
    "resources": {"gpus_per_trial": 0.3, "concurrency": 2},
    "final": {"finalists": 0},
    "record": {"versions": {"python": "3.11"}},
}


@pytest.mark.parametrize("sections", [{}, SECTIONS])
def test_a_dumped_configuration_parses_to_itself_bit_for_bit(tmp_path, sections):
    cls = StudyConfig.of(sections)
    config = cls.parse(FULL)
    path = written(tmp_path, to_yaml(config.dump()))
    again = cls.load(path)
    assert again.dump() == config.dump()
    assert again.model_dump() == config.model_dump()


def test_typing_a_configuration_fills_in_defaults_and_is_done_once():
    config = StudyConfig.parse(FULL).typed(SECTIONS)
    assert isinstance(config.training, Training)
    assert config.training == Training(width=16)
    assert config.typed(SECTIONS).dump() == config.dump()


def test_typing_a_configuration_tells_all_that_the_trainable_cannot_take():
    with pytest.raises(ConfigurationError) as caught:
        StudyConfig.parse({"training": {"width": "wide"}, "space": {"qqq": REAL}}).typed(SECTIONS)
    assert caught.value.problems == [
        "data.path: must be given",
        "training.width: must be a valid integer, unable to parse string as an integer, but got 'wide'",
        "space.qqq: unknown hyperparameter; known: rate, width, optimizer",
    ]


@pytest.mark.parametrize("name", ["quickstart", "ct_resnet50", "ct_resnet50_fast", "seed_paper", "starter"])
def test_every_shipped_study_is_one_that_images_can_be_tuned_with(name):
    config = StudyConfig.load(shipped_study(name), sections=ImageTrainable.sections)
    again = StudyConfig.of(ImageTrainable.sections).parse(yaml.safe_load(to_yaml(config.dump())))
    assert again.dump() == config.dump()
    assert ImageTrainable.metrics[config.objective.metric] == config.objective.direction


def test_problems_of_an_image_study_come_with_those_of_the_search():
    found = problems(
        {
            "data": {"path": "x", "image_sizes": 64},
            "model": {"weights": "random", "batch_norm": "frozen"},
            "training": {"learning_rate": 0},
            "space": {"dropout": {"type": "float", "low": 0, "high": 1}},
            "budget": {"trials": 0},
        },
        sections=ImageTrainable.sections,
    )
    assert [problem.split(":")[0] for problem in found] == [
        "data.image_sizes",
        "model",
        "training.learning_rate",
        "budget.trials",
        "space.dropout",
    ]
    assert found[0].endswith("did you mean `image_size`?")


def test_storage_is_the_same_folder_from_everywhere(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert StudyConfig.parse({}).storage == tmp_path / "runs"
    assert StudyConfig.parse({"storage": "~/x"}).storage == Path.home() / "x"


def test_a_configuration_is_fixed_once_read():
    with pytest.raises(ValueError, match="frozen"):
        StudyConfig.parse({}).seed = 3


def test_a_configuration_error_keeps_its_problems_between_processes():
    error = pickle.loads(pickle.dumps(ConfigurationError(["one", "two"])))
    assert error.problems == ["one", "two"]
    assert ConfigurationError("one").problems == ["one"]


@pytest.mark.parametrize(
    ("direction", "better"), [("maximize", [False, False, True]), ("minimize", [True, False, False])]
)
def test_better_means_strictly_better_in_the_objectives_direction(direction, better):
    objective = Objective(direction=direction)
    assert [objective.better(value, 0.5) for value in (0.4, 0.5, 0.6)] == better
    assert not objective.better(math.nan, 0.5)

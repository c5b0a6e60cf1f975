import platform
import re
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

from search.config import StudyConfig
from search.launch.suitability import MODULES, code_is_sent, code_problems, problems_of

THERE = {
    "python": platform.python_version(),
    "thawline": metadata.version("thawline"),
    "paths": ["/there/scans"],
    "modules": list(MODULES),
    "launcher": {},
}
GROWS = {
    "head_node_type": "head",
    "max_workers": 2,
    "available_node_types": {"head": {"resources": {"CPU": 0}}, "worker": {"resources": {"CPU": 8, "GPU": 2}}},
}


@pytest.mark.parametrize(
    ("there", "wanted", "expected"),
    [(metadata.version("thawline"), False, False), (metadata.version("thawline"), True, True), ("0.0.1", False, True)],
)
def test_code_is_sent_where_the_cluster_has_another(there, wanted, expected):
    assert code_is_sent({"thawline": there}, wanted) is expected
    assert code_is_sent({"thawline": None}, False) is True


def asked(**resources):
    return StudyConfig.parse({"resources": resources})


def test_a_cluster_that_can_do_it_has_no_problems():
    nodes = [{"CPU": 2.0}]
    assert problems_of(asked(), THERE, nodes, {"data.path": Path("/there/scans")}) == []


def test_all_problems_are_told_at_once():
    nodes = [{"CPU": 2.0, "GPU": 2.0}, {"CPU": 1.0}]
    elsewhere = {"data.path": Path("/there/scans"), "model.weights": Path("/nowhere/w.h5")}
    assert problems_of(asked(gpus_per_trial=4), THERE, nodes, elsewhere) == [
        "resources: asked for 4 GPUs per trial, the largest node has 2",
        "model.weights: must exist here, to be sent, or on the cluster's head, but /nowhere/w.h5 is in neither place",
    ]


def test_workers_that_an_autoscaler_may_add_count():
    head = [{"CPU": 0.0}]
    assert problems_of(asked(gpus_per_trial=2), THERE | {"launcher": GROWS}, head, {}) == []
    assert problems_of(asked(gpus_per_trial=4), THERE | {"launcher": GROWS}, head, {}) == [
        "resources: asked for 4 GPUs per trial, the largest node has 2"
    ]
    assert problems_of(asked(gpus_per_trial=4), THERE, head, {}) == []  # of an autoscaler that can't be seen


def test_code_needs_the_same_python_and_its_packages():
    assert code_problems(THERE) == []
    there = THERE | {"python": "3.99.1", "modules": [name for name in MODULES if name not in ("keras", "optuna")]}
    python, packages = code_problems(there)
    assert "one minor version at both ends" in python
    assert "3.99.1 there" in python
    assert "lacks keras, optuna; install thawline" in packages


def test_the_modules_are_those_that_the_project_depends_on():
    installed_as = {"sklearn": "scikit-learn", "yaml": "pyyaml", "PIL": "pillow", "grpc": "grpcio"}
    project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    needed = {re.split(r"[\[<>=]", line)[0] for line in project["dependencies"]}
    assert {installed_as.get(name, name) for name in MODULES} == needed

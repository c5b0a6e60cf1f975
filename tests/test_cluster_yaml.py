"""The launcher file against Ray's own schema, and against what must never slip: the bill, the token, the dashboard."""

import importlib.util
import json
import re
from pathlib import Path

import jsonschema
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def cluster():
    return yaml.safe_load((ROOT / "cluster.yaml").read_text(encoding="utf-8"))


def _ray_file(name):
    """A file of the installed Ray, found without importing it."""
    [folder] = importlib.util.find_spec("ray").submodule_search_locations
    return Path(folder) / name


def _starts(commands):
    return [command for command in commands if "ray start" in command]


def test_ray_accepts_the_file(cluster):
    jsonschema.validate(cluster, json.loads(_ray_file("autoscaler/ray-schema.json").read_text(encoding="utf-8")))


def test_gpu_workers_scale_from_zero_and_have_an_end(cluster):
    gpu_groups = [kind for kind in cluster["available_node_types"].values() if kind["resources"].get("GPU")]
    assert gpu_groups
    assert all(group["min_workers"] == 0 and 0 < group["max_workers"] <= cluster["max_workers"] for group in gpu_groups)
    assert 0 < cluster["idle_timeout_minutes"] <= 15


def test_the_head_runs_no_trials_and_is_not_taken_away(cluster):
    head = cluster["available_node_types"][cluster["head_node_type"]]
    assert head["resources"] == {"CPU": 0}
    assert "InstanceMarketOptions" not in head["node_config"]


@pytest.mark.parametrize("role", ["head", "worker"])
def test_every_node_asks_for_the_token(cluster, role):
    [start] = _starts(cluster[f"{role}_start_ray_commands"])
    assert "RAY_AUTH_MODE=token ray start" in start


def test_the_token_reaches_every_node_and_is_closed_to_others(cluster):
    assert cluster["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"
    assert "chmod 600 ~/.ray/auth_token" in cluster["setup_commands"]


def test_the_dashboard_is_not_open_to_the_network(cluster):
    [start] = _starts(cluster["head_start_ray_commands"])
    assert "--dashboard-host=127.0.0.1" in start
    assert "0.0.0.0" not in (ROOT / "cluster.yaml").read_text(encoding="utf-8")


def test_the_image_has_the_locked_ray(cluster):
    locked = re.search(r"^ray==(.+)$", (ROOT / "requirements.lock").read_text(encoding="utf-8"), re.MULTILINE)[1]
    assert cluster["docker"]["image"].startswith(f"rayproject/ray:{locked}-py311")


def test_nodes_install_the_lock_from_files_that_are_sent_to_them(cluster):
    assert any("--requirement ~/thawline/requirements.lock" in command for command in cluster["setup_commands"])
    sent = {remote: local for remote, local in cluster["file_mounts"].items() if remote.startswith("~/thawline/")}
    assert {remote.removeprefix("~/thawline/") for remote in sent} == set(sent.values())
    assert {"pyproject.toml", "requirements.lock", "search", "trainable", "analysis", "configs"} <= set(sent.values())

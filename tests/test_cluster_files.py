"""What cluster.yaml and clusters/ say, against Ray's own checks and what must never slip: bill, token, dashboard."""

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]


LAUNCHED = ("cluster.yaml", "clusters/on_premise.yaml")


def _read(name):
    return yaml.safe_load((ROOT / name).read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def cluster():
    return _read("cluster.yaml")


@pytest.fixture(params=LAUNCHED)
def launched(request):
    return _read(request.param)


def _ray_file(name):
    """A file of the installed Ray, found without importing it."""
    [folder] = importlib.util.find_spec("ray").submodule_search_locations
    return Path(folder) / name


def _starts(commands):
    return [command for command in commands if "ray start" in command]


@pytest.mark.parametrize("name", LAUNCHED)
def test_a_launcher_file_fits_on_a_page(name):
    assert len((ROOT / name).read_text(encoding="utf-8").splitlines()) < 100


def test_ray_accepts_the_file(launched):
    jsonschema.validate(launched, json.loads(_ray_file("autoscaler/ray-schema.json").read_text(encoding="utf-8")))


@pytest.mark.parametrize("name", LAUNCHED)
def test_ray_prepares_the_file_as_it_would_for_ray_up(name):
    script = """
import json, sys, yaml
from ray.autoscaler._private.util import prepare_config, validate_config
prepared = prepare_config(yaml.safe_load(open(sys.argv[1])))
validate_config(prepared)
print(json.dumps(prepared))
"""
    called = [sys.executable, "-c", script, ROOT / name]
    finished = subprocess.run(called, cwd=ROOT, capture_output=True, text=True, timeout=180, check=False)
    assert finished.returncode == 0, finished.stderr
    prepared, given = json.loads(finished.stdout.splitlines()[-1]), _read(name)
    assert prepared["head_setup_commands"][: len(given["setup_commands"])] == given["setup_commands"]
    for commands in ("head_start_ray_commands", "worker_start_ray_commands"):
        assert prepared[commands] == given[commands]  # none of Ray's own, which open the dashboard to the network
    missing = {"initialization_commands", "cluster_synced_files", "upscaling_speed", "idle_timeout_minutes"} - {
        *prepared
    }
    assert missing == set()  # what Ray's launcher reads without asking whether it is there


def test_gpu_workers_scale_from_zero_and_have_an_end(cluster):
    gpu_groups = [kind for kind in cluster["available_node_types"].values() if kind["resources"].get("GPU")]
    assert gpu_groups
    assert all(group["min_workers"] == 0 and 0 < group["max_workers"] <= cluster["max_workers"] for group in gpu_groups)
    assert 0 < cluster["idle_timeout_minutes"] <= 15


def test_the_head_runs_no_trials_and_is_not_taken_away(cluster):
    head = cluster["available_node_types"][cluster["head_node_type"]]
    assert head["resources"] == {"CPU": 0}
    assert "InstanceMarketOptions" not in head["node_config"]


def test_spot_workers_are_asked_for_through_the_provider_that_can_do_without(cluster):
    groups = cluster["available_node_types"].values()
    assert any(group["node_config"].get("InstanceMarketOptions") == {"MarketType": "spot"} for group in groups)
    assert cluster["provider"]["type"] == "external"
    assert cluster["provider"]["module"] == "search.spot.SpotFirst"
    assert any("boto3" in command for command in cluster["head_setup_commands"])  # what it needs there


@pytest.mark.parametrize("role", ["head", "worker"])
def test_every_node_asks_for_the_token(launched, role):
    [start] = _starts(launched[f"{role}_start_ray_commands"])
    assert "RAY_AUTH_MODE=token ray start" in start


def test_the_token_reaches_every_node_and_is_closed_to_others(launched):
    assert launched["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"
    assert "chmod 600 ~/.ray/auth_token" in launched["setup_commands"]


def test_the_dashboard_is_not_open_to_the_network(launched):
    [start] = _starts(launched["head_start_ray_commands"])
    assert "--dashboard-host=127.0.0.1" in start
    assert "0.0.0.0" not in json.dumps(launched)


def test_the_image_has_the_locked_ray(cluster):
    locked = re.search(r"^ray==(.+)$", (ROOT / "requirements.lock").read_text(encoding="utf-8"), re.MULTILINE)[1]
    assert cluster["docker"]["image"].startswith(f"rayproject/ray:{locked}-py311")


def test_nodes_install_the_lock_from_files_that_are_sent_to_them(launched):
    assert any("--requirement ~/thawline/requirements.lock" in command for command in launched["setup_commands"])
    sent = {remote: local for remote, local in launched["file_mounts"].items() if remote.startswith("~/thawline/")}
    assert all((ROOT / local).exists() for local in sent.values())
    assert {remote.removeprefix("~/thawline/") for remote in sent} == set(sent.values())
    assert {"pyproject.toml", "requirements.lock", "search", "trainable", "analysis", "configs"} <= set(sent.values())

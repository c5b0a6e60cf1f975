"""F19: a kill in the final training leaves no half model under the final name."""

import hashlib
import json
import signal
import subprocess
import sys

import pytest

from search.safe_yaml import to_yaml
from trainable.synthetic import draw_study

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

# The command line, but killed at the moment when the finished model would take its name.
KILLED = """
import os, signal
replace = os.replace
def kill(source, target, **more):
    if os.path.basename(target) == "model.keras":
        os.kill(os.getpid(), signal.SIGKILL)
    return replace(source, target, **more)
os.replace = kill
from search.cli import main
main()
"""
STUDY = {
    "data": {"path": "images", "groups": "groups.csv", "image_size": 32},
    "model": {"weights": "random", "architecture": "mobilenetv2"},
    "training": {"freeze_depth": 5},
    "budget": {"epochs": 1},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("winner")
    draw_study(folder, images_per_class=24, image_size=32, seed=3)
    (folder / "best.yaml").write_text(to_yaml(STUDY))
    return folder


def retrain(folder, *how):
    command = [sys.executable, *how, "retrain", "best.yaml", "--quiet"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=False)


def test_f19_a_kill_in_the_final_training_leaves_no_half_model(folder):
    final = folder / "best" / "final"
    killed = retrain(folder, "-c", KILLED)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert final.is_dir()
    assert not (final / "model.keras").exists()
    assert not (final / "model.json").exists()
    again = retrain(folder, "-m", "search.cli")
    assert again.returncode == 0, again.stderr
    described = json.loads((final / "model.json").read_text())
    assert hashlib.sha256((final / "model.keras").read_bytes()).hexdigest() == described["sha256"]
    assert not [path.name for path in final.iterdir() if path.name.startswith(("unfinished", "."))]
    assert not list((folder / "best").glob("*.lock"))

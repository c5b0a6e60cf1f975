"""The web door of a cluster that `cluster.yaml` starts: its dashboard, and the jobs that it takes."""

import os
import shlex
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
import yaml

from search.leftovers import no_leftovers

ROOT = Path(__file__).parents[2]
TOKEN = "0123456789abcdef" * 4
HERE_OTHERWISE = ("--port", "--object-manager-port", "--autoscaling-config")  # of a machine that is somebody else's

pytestmark = [pytest.mark.ray, pytest.mark.timeout(300)]


def head_start() -> tuple[dict[str, str], list[str]]:
    """Environment and options of the head that `cluster.yaml` starts."""
    commands = yaml.safe_load((ROOT / "cluster.yaml").read_text(encoding="utf-8"))["head_start_ray_commands"]
    [words] = [shlex.split(command.partition(";")[2]) for command in commands if "ray start" in command]
    start = words.index("ray")
    environment = dict(word.split("=", 1) for word in words[:start])
    return environment, [word for word in words[start + 2 :] if not word.startswith(HERE_OTHERWISE)]


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def answer(address: str, token: str | None = None) -> int:
    """HTTP status of a request; 0 when nobody listens."""
    request = urllib.request.Request(address, headers={"Authorization": f"Bearer {token}"} if token else {})
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            return response.status
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


@pytest.fixture(scope="module")
def dashboard():
    """Port of the dashboard of a head started as `cluster.yaml` says, but for its ports."""
    environment, options = head_start()
    port = free_port()
    ray = [sys.executable, "-m", "ray.scripts.scripts", "start", *options, "--port=0", f"--dashboard-port={port}"]
    with tempfile.TemporaryDirectory(prefix="t-", dir="/tmp", ignore_cleanup_errors=True) as folder, no_leftovers():
        process = subprocess.Popen(
            [*ray, "--num-cpus=0", "--object-store-memory=100000000", f"--temp-dir={folder}/ray", "--block"],
            env={**os.environ, **environment, "RAY_AUTH_TOKEN": TOKEN},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        deadline = time.monotonic() + 120
        while not answer(f"http://127.0.0.1:{port}/") and time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.2)
        yield port
        process.terminate()
        process.communicate(timeout=60)


@pytest.mark.parametrize("path", ["api/jobs/", "api/version", "nodes?view=summary"])
def test_f50_a_request_without_the_token_gets_401_and_with_another_one_403(dashboard, path):
    address = f"http://127.0.0.1:{dashboard}/{path}"
    assert answer(address) == 401
    assert answer(address, "f" * 64) == 403
    assert answer(address, TOKEN) == 200


def test_f50_the_dashboard_listens_on_loopback_alone(dashboard):
    listening = [line.split() for line in Path("/proc/net/tcp").read_text(encoding="ascii").splitlines()[1:]]
    addresses = {
        local.split(":")[0]
        for _, local, _, state, *_ in listening
        if state == "0A" and int(local.split(":")[1], 16) == dashboard
    }
    assert addresses == {"0100007F"}  # 127.0.0.1, the lowest byte first

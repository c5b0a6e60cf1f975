"""A laptop and a cluster: the command as a user types it, a head as `ray start` makes it, a tunnel between them."""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import pytest

from analysis import read_trials
from search.launch.door import TERMINAL, Door, last_line
from search.launch.parcel import pack_search
from search.leftovers import no_leftovers
from search.safe_yaml import to_yaml
from trainable.synthetic import draw_study

ROOT = Path(__file__).parents[3]
THAWLINE = Path(sys.executable).with_name("thawline")

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(900)]


class Tunnel:
    """Carries bytes between a port here and another one, until it is cut; then it does so for new connections."""

    def __init__(self, to):
        self._to, self._pairs = to, []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        with suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                far = socket.create_connection(("127.0.0.1", self._to))
                self._pairs.append((near, far))
                for source, target in ((near, far), (far, near)):
                    threading.Thread(target=self._pump, args=(source, target), daemon=True).start()

    def _pump(self, source, target):
        with suppress(OSError):
            while piece := source.recv(65536):
                target.sendall(piece)
            target.shutdown(socket.SHUT_WR)

    def cut(self):
        while self._pairs:
            for end in self._pairs.pop():
                with suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
                end.close()

    def close(self):
        self._listener.close()
        self.cut()


def free_ports(number):
    listeners = [socket.create_server(("127.0.0.1", 0)) for _ in range(number)]
    ports = [listener.getsockname()[1] for listener in listeners]
    for listener in listeners:
        listener.close()
    return ports


def answers(port):
    try:
        urllib.request.urlopen(f"http://127.0.0.1:{port}/api/version", timeout=5)
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
    return True


@pytest.fixture(scope="module")
def head():
    """A head with a token, a home of its own, and the code of this project."""
    port, client, agent = free_ports(3)
    options = ["--head", "--port=0", "--dashboard-host=127.0.0.1", f"--dashboard-port={port}", "--block"]
    options += [f"--ray-client-server-port={client}", f"--dashboard-agent-listen-port={agent}"]
    options += ["--num-cpus=2", "--object-store-memory=100000000"]
    with tempfile.TemporaryDirectory(prefix="t-", dir="/tmp", ignore_cleanup_errors=True) as folder, no_leftovers():
        home = Path(folder) / "home"
        home.mkdir()
        environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
        path = f"{Path(sys.executable).parent}:{environment['PATH']}"
        process = subprocess.Popen(
            [sys.executable, "-m", "ray.scripts.scripts", "start", *options, f"--temp-dir={folder}/ray"],
            env={**environment, "RAY_AUTH_MODE": "token", "HOME": str(home), "PATH": path, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        deadline = time.monotonic() + 120
        while not answers(port) and time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.2)
        yield SimpleNamespace(port=port, home=home, logs=Path(folder) / "ray" / "session_latest" / "logs")
        process.terminate()
        process.communicate(timeout=60)


@pytest.fixture
def laptop(head, tmp_path):
    """A folder with images and a study, and `thawline launch` in it, through a tunnel."""
    draw_study(tmp_path / "drawn", 16, 32, 1)
    study = {
        "seed": 1,
        "data": {"path": "drawn/images", "groups": "drawn/groups.csv", "image_size": 32, "positive_class": "lesion"},
        "model": {"architecture": "mobilenetv2", "weights": "random"},
        "training": {"batch_size": 8, "freeze_depth": 5},
        "space": {"learning_rate": {"type": "float", "low": 0.0003, "high": 0.003, "log": True}},
        "objective": {"metric": "val_auc", "direction": "maximize"},
        "budget": {"trials": 2, "epochs": 2},
    }
    (tmp_path / "lungs.yaml").write_text(to_yaml(study), encoding="utf-8")
    tunnel = Tunnel(head.port)
    yield Laptop(tmp_path, tunnel)
    tunnel.close()


class Laptop:
    def __init__(self, folder, tunnel):
        self.folder, self.tunnel = folder, tunnel
        self.address = f"http://127.0.0.1:{tunnel.port}"

    def start(self, *arguments, **environment):
        return subprocess.Popen(
            [THAWLINE, "launch", "lungs.yaml", "--address", self.address, *arguments],
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def launch(self, *arguments, **environment):
        process = self.start(*arguments, **environment)
        output, errors = process.communicate(timeout=400)
        return process.returncode, output, errors

    def jobs(self, name):
        return [(job.submission_id, str(job.status)) for job in Door(self.address).jobs(name)]


def until(process, text):
    """What the process says on standard error up to a line with this text."""
    lines = []
    for line in process.stderr:
        lines.append(line)
        if text in line:
            break
    return "".join(lines)


def rest(process):
    """Exit code, standard output and the rest of standard error of a process that `until` read."""
    errors, output = process.stderr.read(), process.stdout.read()
    return process.wait(timeout=60), output, errors


def test_f53_a_study_survives_the_laptop_and_comes_back_whole(head, laptop):
    process = laptop.start("--name", "lungs")
    assert "sending data.path, data.groups" in until(process, "trial 0 asked")
    process.send_signal(signal.SIGINT)
    code, _, errors = rest(process)
    assert code == 130
    assert "left running: thawline-lungs-1 goes on" in errors
    assert f"end it: thawline launch lungs.yaml --name lungs --address {laptop.address} --stop" in errors

    process = laptop.start("--name", "lungs")
    first = until(process, "trial 0 asked")
    assert "lungs is running there already, as thawline-lungs-1\n" in first
    laptop.tunnel.cut()
    code, output, errors = rest(process)
    assert code == 0, errors
    assert "it is tried again, the job goes on meanwhile" in errors
    told = [line for line in (first + errors).splitlines() if line.startswith("trial ")]
    assert len(told) == len(set(told)) == 2 + 4
    assert "best trial" in output
    assert laptop.jobs("lungs") == [("thawline-lungs-1", "SUCCEEDED")]

    here, there = laptop.folder / "runs" / "lungs", head.home / "thawline" / "runs" / "lungs"
    assert read_trials(here).equals(read_trials(there))
    assert (here / "trials" / "0" / "log.txt").read_bytes() == (there / "trials" / "0" / "log.txt").read_bytes()
    assert (here / "split.csv").read_bytes() == (there / "split.csv").read_bytes()
    assert not (here / "arrays").exists()
    assert list(head.logs.glob("thawline-*")) == []  # nothing stays lent
    token = os.environ["RAY_AUTH_TOKEN"]
    assert [log for log in head.logs.glob("job-driver-*") if token in log.read_text(errors="replace")] == []

    code, _, errors = laptop.launch("--name", "lungs", "--fetch")
    assert (code, len(laptop.jobs("lungs"))) == (0, 1), errors
    code, _, errors = laptop.launch("--name", "lungs")
    assert (code, len(laptop.jobs("lungs"))) == (0, 1), errors
    assert "trial" not in errors
    code, _, errors = laptop.launch("--name", "lungs", "--trials", "3")
    assert (code, laptop.jobs("lungs")[1]) == (0, ("thawline-lungs-2", "SUCCEEDED")), errors
    assert "sending" not in errors  # the images are there
    assert [line.split()[1] for line in errors.splitlines() if " asked: " in line] == ["2"]
    assert list(read_trials(here)["number"]) == [0, 1, 2]


def test_a_search_that_is_stopped_brings_back_what_it_has(laptop):
    process = laptop.start("--name", "stopped", "--trials", "500")
    until(process, "epoch 1")
    code, output, errors = laptop.launch("--name", "stopped", "--stop")
    assert code == 0, errors
    assert "best trial" in output
    assert laptop.jobs("stopped") == [("thawline-stopped-1", "STOPPED")]
    assert rest(process)[0] == 1


def test_what_is_wrong_is_told_before_anything_runs(laptop):
    many = ("--name", "refused", "--set", "resources.gpus_per_trial=4", "--set", "model.weights=/nowhere/w.h5")
    code, _, errors = laptop.launch(*many)
    assert code == 2
    assert "asked for 4 GPUs per trial, the largest node has 0" in errors
    assert "/nowhere/w.h5 is in neither place" in errors
    code, _, errors = laptop.launch("--name", "refused", RAY_AUTH_TOKEN="f" * 64)
    assert code == 2
    assert "the token must be the cluster's" in errors
    assert "f" * 64 not in errors
    assert laptop.jobs("refused") == []
    (laptop.folder / "runs" / "refused").mkdir(parents=True)
    code, _, errors = laptop.launch("--name", "refused")
    assert code == 2
    assert "a run that was made here is there" in errors


def test_what_the_search_itself_refuses_there_is_shown_and_ends_with_2(laptop):
    code, _, errors = laptop.launch("--name", "too_large", "--set", "training.batch_size=512")
    assert code == 2
    assert "batch_size: must be at most the" in errors


def test_code_that_is_sent_is_what_the_job_and_its_workers_import(laptop, tmp_path):
    script = (
        "import json, ray, search; ray.init(address='auto', log_to_driver=False, logging_level='ERROR')\n"
        "there = ray.remote(lambda: __import__('search').__file__)\n"
        "print(json.dumps({'job': search.__file__, 'worker': ray.get(there.remote())}))"
    )
    door = Door(laptop.address)
    package = pack_search("name: sent\n", True, tmp_path / "sent.zip")
    door.submit(["python", "-c", script], package, "imports", {})
    while door.job("imports").status not in TERMINAL:
        time.sleep(0.5)
    found = last_line(door.log("imports"))
    assert [ROOT not in Path(file).parents and "_ray_pkg_" in file for file in found.values()] == [True, True], found


def test_a_program_gets_the_events_of_a_job_that_runs_the_code_from_here(laptop):
    code, output, errors = laptop.launch("--name", "events", "--send-code", "--trials", "1", "--json-events")
    assert code == 0, errors
    kinds = [json.loads(line)["kind"] for line in output.splitlines()]
    assert [kind for kind in kinds if kind not in ("step", "said", "noted")] == [
        "study",
        "session_opened",
        "asked",
        "started",
        "epoch_reported",
        "epoch_reported",
        "ended",
    ]

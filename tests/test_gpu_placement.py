"""GPUs without GPUs: a real Ray that is told of two, named as an injected list; what each worker would use of them."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.timeout(420)

ROOT = Path(__file__).resolve().parents[1]
# Numbers that are no positions, so that a position taken for a name is seen.
DEVICES = "3,5"
SCRIPT = """
import json, os, sys
import ray
from trainable.devices import apply_devices, plan_devices, plan_memory, visible_gpus

ray.init(address="local", num_cpus=8, num_gpus=2, include_dashboard=False, object_store_memory=100_000_000,
         _temp_dir=sys.argv[1], log_to_driver=False, logging_level="ERROR")

class Worker:
    def plan(self, gpus):
        settings = plan_devices(1, gpus, visible_gpus())
        return [list(settings.visible_devices), plan_memory(settings, memory_of=lambda device: 16_000)]

    def apply(self, gpus):
        seen = visible_gpus()
        apply_devices(plan_devices(1, gpus, seen))
        import tensorflow as tf
        return [seen, os.environ["CUDA_VISIBLE_DEVICES"], len(tf.config.list_physical_devices("GPU"))]

def plans(count, gpus):
    workers = [ray.remote(num_cpus=1, num_gpus=gpus)(Worker).remote() for _ in range(count)]
    plans = ray.get([worker.plan.remote(gpus) for worker in workers])
    for worker in workers:
        ray.kill(worker)
    return plans

halves = [ray.remote(num_cpus=1, num_gpus=0.5)(Worker).remote() for _ in range(5)]
found = {"halves": ray.get([worker.plan.remote(0.5) for worker in halves[:4]])}
fifth = halves[4].plan.remote(0.5)
found["fifth waits"] = ray.wait([fifth], timeout=2)[0] == []
ray.kill(halves[0])
found["fifth takes the free half"] = ray.get(fifth)[0] == found["halves"][0][0]
for worker in halves[1:]:
    ray.kill(worker)
found["thirds"] = plans(6, 0.3)
found["whole"] = plans(2, 1)
found["both"] = plans(1, 2)
if "cpu" in sys.argv:
    found["cpu only"] = ray.get(ray.remote(num_cpus=1, num_gpus=0)(Worker).remote().apply.remote(0))
print(json.dumps(found))
"""

STUDY = """
import json, sys, time
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from ray import tune
from ray.cluster_utils import Cluster
from search.config import StudyConfig
from search.driver import run_study
from search.ledger import read_history
from trainable.devices import plan_devices, plan_memory, visible_gpus

class Trial(tune.Trainable):
    def setup(self, config):
        self.reset_config(config)

    def reset_config(self, config):
        self._messages = self._run(config["study"], config["trial"])
        return True

    def step(self):
        return {"thawline": [next(self._messages)]}

    def _run(self, study, trial):
        plan = plan_devices(study["cpus"], study["gpus"], visible_gpus())
        yield {"kind": "started", "worker": "one"}
        began = time.time()
        for epoch in range(1, trial["epochs"] + 1):
            time.sleep(0.5)
            yield {"kind": "epoch", "epoch": epoch, "metrics": {"v": 1.0}, "seconds": {}, "last": False}
            limit = plan_memory(plan, memory_of=lambda device: 16_000)
            used = [list(plan.visible_devices), limit, began, time.time()]
            (Path(study["folder"]) / str(trial["key"][0])).write_text(json.dumps(used))

@dataclass
class Prepared:
    record: dict[str, Any]
    context: dict[str, Any]
    remarks: tuple[str, ...] = ()

class Trainable:
    sections = {}
    metrics = {"v": "maximize"}
    trial_class = Trial

    def settled(self, config, earlier):
        return config

    def prepare(self, config, largest, folder, progress):
        return Prepared({}, {"folder": sys.argv[1]})

head = {"num_cpus": 8, "num_gpus": 2, "object_store_memory": 100_000_000, "temp_dir": sys.argv[1] + "/ray"}
cluster = Cluster(initialize_head=True, head_node_args=head)
paths = run_study(StudyConfig.parse({
    "name": "it",
    "storage": sys.argv[1] + "/runs",
    "space": {"x": {"type": "float", "low": 0.1, "high": 1.0}},
    "objective": {"metric": "v"},
    "pruner": {"name": "none"},
    "budget": {"trials": 8, "epochs": 3},
    "resources": {"address": cluster.address, "gpus_per_trial": 0.5},
    "final": {"finalists": 0},
}), Trainable())
cluster.shutdown()
history = read_history(paths.ledger)
print(json.dumps({
    "at once": history.note("cluster")["trials_at_once"],
    "completed": sum(trial.status == "completed" for trial in history.search_trials()),
    "used": [json.loads((Path(sys.argv[1]) / str(number)).read_text()) for number in range(8)],
}))
"""


def _run(*what, script=SCRIPT):
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="t-", ignore_cleanup_errors=True) as folder:
        finished = subprocess.run(
            [sys.executable, "-c", script, folder, *what],
            env={**os.environ, "CUDA_VISIBLE_DEVICES": DEVICES, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=400,
            check=False,
        )
    assert finished.returncode == 0, finished.stderr
    return json.loads(finished.stdout.splitlines()[-1])


def _by_device(plans):
    """How many workers each device has, and what they may take of its memory."""
    assert all(len(devices) == 1 for devices, _ in plans)
    names = [devices[0] for devices, _ in plans]
    return {name: names.count(name) for name in names}, {limit for _, limit in plans}


@pytest.fixture(scope="module")
def found():
    return _run()


@pytest.mark.ray
def test_two_trials_of_half_a_gpu_share_one_and_a_third_waits_for_its_place(found):
    assert _by_device(found["halves"]) == ({"3": 2, "5": 2}, {8_000 - 1_024})
    assert found["fifth waits"]
    assert found["fifth takes the free half"]


@pytest.mark.ray
def test_shares_that_do_not_add_up_leave_the_rest_of_a_gpu_free(found):
    assert _by_device(found["thirds"]) == ({"3": 3, "5": 3}, {4_800 - 1_024})


@pytest.mark.ray
def test_whole_gpus_are_each_for_one_trial_without_a_limit(found):
    assert _by_device(found["whole"]) == ({"3": 1, "5": 1}, {None})
    [[devices, limit]] = found["both"]
    assert (sorted(devices), limit) == (["3", "5"], None)


@pytest.mark.ray
@pytest.mark.slow
def test_a_trial_on_cpu_sees_no_gpu_though_ray_hides_none():
    seen, applied, used = _run("cpu")["cpu only"]
    assert seen == DEVICES.split(",")
    assert applied == ""
    assert used == 0


@pytest.mark.ray
def test_a_search_runs_as_many_trials_at_once_as_there_are_halves_of_gpus():
    found = _run(script=STUDY)
    assert (found["at once"], found["completed"]) == (4, 8)
    assert {limit for _, limit, _, _ in found["used"]} == {8_000 - 1_024}
    for device in DEVICES.split(","):
        spans = [(began, ended) for [name], _, began, ended in found["used"] if name == device]
        assert spans, f"device {device} was left idle"
        assert max(sum(began <= moment < ended for began, ended in spans) for moment, _ in spans) <= 2

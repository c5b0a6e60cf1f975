import json
import math
import os
import platform
import subprocess
import sys

import pytest

from trainable.devices import (
    DeviceSettings,
    computes_bfloat16,
    gpu_bytes,
    plan_devices,
    plan_memory,
    total_megabytes,
    visible_gpus,
)
from trainable.errors import InputError


@pytest.mark.parametrize(
    ("cpus", "gpus", "visible", "expected"),
    [
        (1, 0, [], DeviceSettings((), None, 1)),
        (2, 0, ["0", "1"], DeviceSettings((), None, 2)),
        (0.5, 0, [], DeviceSettings((), None, 1)),
        (3.9, 0, [], DeviceSettings((), None, 3)),
        (4, 1, ["2"], DeviceSettings(("2",), None, 4)),
        (1, 0.25, ["GPU-6a1f"], DeviceSettings(("GPU-6a1f",), 0.25, 1)),
        (1, 0.5, ["3", "0"], DeviceSettings(("3",), 0.5, 1)),
        (1, 2, ["0", "1", "2"], DeviceSettings(("0", "1"), None, 1)),
    ],
)
def test_a_worker_uses_what_it_was_promised_and_no_more(cpus, gpus, visible, expected):
    assert plan_devices(cpus, gpus, visible) == expected


def test_the_memory_of_a_gpu_is_asked_for_by_its_name_and_for_a_share_alone():
    asked = []

    def memory_of(device):
        asked.append(device)
        return {"GPU-6a1f": 16_000, "GPU-77b0": 80_000}[device]

    assert plan_memory(plan_devices(1, 0.5, ["GPU-77b0", "GPU-6a1f"]), memory_of) == 40_000 - 1024
    assert plan_memory(plan_devices(1, 1, ["GPU-6a1f"]), memory_of) is None
    assert plan_memory(plan_devices(1, 0, ["GPU-6a1f"]), memory_of) is None
    assert asked == ["GPU-77b0"]


def test_networks_lie_in_what_a_worker_may_take_of_its_gpu():
    def memory_of(device):
        if device == "silent":
            raise InputError("the driver does not tell")
        return 16_000

    assert gpu_bytes(plan_devices(1, 1, ["0"]), memory_of) == 16_000 * 2**20
    assert gpu_bytes(plan_devices(1, 0.25, ["0"]), memory_of) == (4_000 - 1024) * 2**20
    assert gpu_bytes(plan_devices(1, 0, []), memory_of) == math.inf
    assert gpu_bytes(plan_devices(1, 1, ["silent"]), memory_of) == math.inf


@pytest.mark.parametrize(("gpus", "visible"), [(1, []), (0.5, []), (2, ["0"])])
def test_a_promised_gpu_that_is_not_there_is_named(gpus, visible):
    with pytest.raises(InputError, match="visible GPU"):
        plan_devices(1, gpus, visible)


@pytest.mark.parametrize(
    ("listed", "expected"),
    [("", []), ("-1", []), ("0", ["0"]), ("1, 3", ["1", "3"]), ("GPU-6a1f,GPU-77b0", ["GPU-6a1f", "GPU-77b0"])],
)
def test_the_environment_says_which_gpus_are_seen(monkeypatch, listed, expected):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", listed)
    assert visible_gpus() == expected


@pytest.mark.parametrize(
    ("driver", "expected"), [("echo 0; echo 1", ["0", "1"]), ("echo no devices were found >&2; exit 6", []), (None, [])]
)
def test_without_a_word_from_the_environment_the_driver_is_asked(monkeypatch, tmp_path, driver, expected):
    if driver:
        (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\n{driver}\n")
        (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert visible_gpus() == expected


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("fpu avx2 avx512f avx512_vnni", False),
        ("fpu avx512f avx512_bf16 amx_bf16", True),
        ("fpu avx512_bf16", True),
        ("fpu amx_bf16_x", False),
    ],
)
def test_a_processor_says_by_its_flags_whether_it_computes_in_bfloat16(tmp_path, flags, expected):
    (tmp_path / "cpuinfo").write_text(f"processor\t: 0\nmodel name\t: A\nflags\t\t: {flags}\n\nprocessor\t: 1\n")
    assert computes_bfloat16(False, tmp_path / "cpuinfo") == expected


def test_a_processor_that_nothing_is_known_of_computes_no_bfloat16(tmp_path):
    assert not computes_bfloat16(False, tmp_path / "cpuinfo")


@pytest.mark.parametrize(
    ("driver", "expected"),
    [
        ("echo 8.0", True),
        ("echo 9.0; echo 8.9", True),
        ("echo 9.0; echo 7.5", False),  # an A100 beside a T4
        ("echo N/A", False),
        ("exit 6", False),
        ("true", False),
        (None, False),
    ],
)
def test_gpus_say_by_their_capability_whether_all_compute_in_bfloat16(monkeypatch, tmp_path, driver, expected):
    if driver:
        (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\n{driver}\n")
        (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "cpuinfo").write_text("flags : avx512_bf16")
    assert computes_bfloat16(True, tmp_path / "cpuinfo") == expected


DRIVER = """#!/bin/sh
case "$*" in
  *memory.total*--id=1*) echo 81559 ;;
  *) exit 6 ;;
esac
"""


def test_the_driver_is_asked_for_the_memory_of_one_gpu(monkeypatch, tmp_path):
    (tmp_path / "nvidia-smi").write_text(DRIVER)
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert total_megabytes("1") == 81559
    with pytest.raises(InputError, match="a share needs the memory of GPU 2"):
        total_megabytes("2")


def _limit(share, total):
    return plan_memory(DeviceSettings(("0",), share, 1), memory_of=lambda device: total)


@pytest.mark.parametrize("workers", [2, 3, 4, 8])
def test_all_shares_of_a_gpu_fit_on_it_with_their_cuda_libraries(workers):
    limit = _limit(1 / workers, 16_000)
    assert limit >= 512
    assert workers * (limit + 1024) <= 16_000


def test_a_share_too_small_to_train_says_which_would_do():
    with pytest.raises(InputError, match=r"at least 0\.1 on a GPU with 16,000 MB, but got 0\.05"):
        _limit(0.05, 16_000)
    assert _limit(0.1, 16_000) >= 512


@pytest.mark.slow
def test_tensorflow_starts_with_the_settings():
    script = """
import json, os
os.environ["CUDA_VISIBLE_DEVICES"] = "0"
from trainable.devices import DeviceSettings, apply_devices, plan_devices
apply_devices(plan_devices(1, 0, []))
apply_devices(plan_devices(1, 0, []))
import tensorflow as tf
threading = tf.config.threading
set_to = [
    threading.get_intra_op_parallelism_threads(), threading.get_inter_op_parallelism_threads(),
    os.environ["CUDA_VISIBLE_DEVICES"], os.environ["OMP_NUM_THREADS"],
]
float(tf.reduce_sum(tf.ones(3)))
try:
    apply_devices(plan_devices(2, 0, []))
    late = "accepted"
except RuntimeError:
    late = "refused"
import logging
said = []
handler = logging.Handler()
handler.emit = said.append
logging.getLogger("thawline.trial").addHandler(handler)
apply_devices(DeviceSettings((), None, 1))
assert not said
apply_devices(DeviceSettings(("7",), 0.5, 1))
[warning] = said
assert "GPUs 7 were promised, but TensorFlow finds 0" in warning.getMessage()
print(json.dumps([*set_to, late]))
"""
    assert json.loads(_printed(script, os.environ)) == [1, 1, "", "1", "refused"]


@pytest.mark.slow
@pytest.mark.skipif(platform.machine() != "x86_64", reason="TensorFlow's oneDNN is x86's")
@pytest.mark.parametrize(("environment", "used"), [({}, True), ({"TF_ENABLE_ONEDNN_OPTS": "0"}, False)])
def test_convolutions_are_onednns_whatever_the_processor_unless_the_environment_says_no(environment, used):
    script = """
from trainable.devices import apply_devices, plan_devices
apply_devices(plan_devices(1, 0, []))
import tensorflow as tf
tf.function(tf.nn.conv2d)(tf.ones([1, 8, 8, 3]), tf.ones([3, 3, 3, 4]), 1, "SAME")
"""
    surroundings = {name: value for name, value in os.environ.items() if name != "TF_ENABLE_ONEDNN_OPTS"}
    printed = _printed(script, {**surroundings, "ONEDNN_VERBOSE": "1", **environment})
    assert ("primitive,exec,cpu,convolution" in printed) == used


def _printed(script, environment):
    """What a fresh process prints, which must end well."""
    command = [sys.executable, "-c", script]
    finished = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=170, check=False)
    assert finished.returncode == 0, finished.stderr
    return finished.stdout

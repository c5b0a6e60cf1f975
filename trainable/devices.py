"""What of the machine one worker uses: planned from plain values, then applied before TensorFlow starts.

Afterwards it is too late. Precision (`model.precision`) and XLA (`model.xla`) follow the study file, not the device.
"""

import logging
import math
import os
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from trainable.errors import InputError

log = logging.getLogger("thawline.trial")

# A process takes this much of a GPU for CUDA, cuDNN and cuBLAS themselves, outside the limit TensorFlow is given.
CUDA_MEGABYTES = 1024
# Compute capability from which GPUs have units for bfloat16, and what Linux calls those of processors.
AMPERE = 8.0
BFLOAT16_FLAGS = {"avx512_bf16", "amx_bf16"}
# Below this no network of ours trains.
LEAST_MEGABYTES = 512


@dataclass(frozen=True)
class DeviceSettings:
    """The devices of one worker: everything about them that is decided, before anything is done.

    Attributes:
        visible_devices: GPUs by number or UUID; empty: CPU only.
        memory_share: Share of the one GPU's memory, in (0, 1); None: GPUs are not shared, and their memory is taken as
            it is needed.
        threads: Threads that TensorFlow computes with, at least 1.
    """

    visible_devices: tuple[str, ...]
    memory_share: float | None
    threads: int


def plan_devices(cpus: float, gpus: float, visible: Sequence[str]) -> DeviceSettings:
    """What a worker with these resources uses.

    Args:
        cpus: CPUs it was promised.
        gpus: GPUs it was promised; below 1, a share of one.
        visible: GPUs it was given, for example the parts of CUDA_VISIBLE_DEVICES.

    Raises:
        InputError: when fewer GPUs are visible than were promised.
    """
    wanted = math.ceil(gpus)
    if len(visible) < wanted:
        raise InputError(
            f"resources.gpus_per_trial: {gpus:g} needs {wanted} visible GPU(s), but this worker sees {len(visible)}; "
            "look whether `nvidia-smi` lists them here, or set it to 0"
        )
    return DeviceSettings(tuple(visible[:wanted]), gpus if 0 < gpus < 1 else None, max(1, int(cpus)))


def visible_gpus() -> list[str]:
    """GPUs this process may use: what CUDA_VISIBLE_DEVICES lists, or all there are where it is not set."""
    listed = os.environ.get("CUDA_VISIBLE_DEVICES")
    if listed is None:
        try:
            listed = ",".join(_ask_driver("index"))
        except (OSError, subprocess.SubprocessError):  # no NVIDIA driver here
            return []
    devices = [device.strip() for device in listed.split(",")]
    return [device for device in devices if device not in ("", "-1")]


def computes_bfloat16(gpus: bool, described: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether this machine has units for bfloat16. Without, oneDNN works it out in float32: four times as slow here.

    Args:
        gpus: Whether its GPUs are meant, and not its processor; without any that tells what it is, the answer is no.
        described: What Linux says of the processor; elsewhere the answer is no.
    """
    if gpus:
        try:
            return min((float(capability) for capability in _ask_driver("compute_cap")), default=0.0) >= AMPERE
        except (OSError, ValueError, subprocess.SubprocessError):
            return False
    try:
        return bool(BFLOAT16_FLAGS & set(described.read_text(encoding="utf-8").split()))
    except OSError:
        return False


def total_megabytes(device: str) -> int:
    """Memory of a GPU named by number or UUID; TensorFlow itself tells it only once it runs.

    Raises:
        InputError: when the NVIDIA driver does not say.
    """
    try:
        [megabytes] = _ask_driver("memory.total", device)
        return int(megabytes)
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        raise InputError(
            f"resources.gpus_per_trial: a share needs the memory of GPU {device}, but `nvidia-smi` does not tell it "
            "here; look whether it does in a shell, or set whole GPUs"
        ) from error


def plan_memory(settings: DeviceSettings, memory_of: Callable[[str], int] = total_megabytes) -> int | None:
    """Megabytes that TensorFlow may take of a GPU, so that 1 / share workers fit on it with their CUDA libraries.

    Args:
        settings: Of the worker; None is the answer where its GPUs are not shared.
        memory_of: Megabytes of a GPU.

    Raises:
        InputError: when the share is too small to train anything.
    """
    if settings.memory_share is None:
        return None
    total = memory_of(settings.visible_devices[0])
    megabytes = int(settings.memory_share * total) - CUDA_MEGABYTES
    if megabytes < LEAST_MEGABYTES:
        least = (CUDA_MEGABYTES + LEAST_MEGABYTES) / total
        raise InputError(
            f"resources.gpus_per_trial: must be at least {math.ceil(100 * least) / 100:g} on a GPU with "
            f"{total:,} MB, but got {settings.memory_share:g}"
        )
    return megabytes


def gpu_bytes(settings: DeviceSettings, memory_of: Callable[[str], int] = total_megabytes) -> float:
    """What a worker may take of its first GPU's memory; infinite without a GPU, or where nobody tells.

    Args:
        settings: Of the worker.
        memory_of: Megabytes of a GPU.
    """
    if not settings.visible_devices:
        return math.inf
    try:
        return 2**20 * (plan_memory(settings, memory_of) or memory_of(settings.visible_devices[0]))
    except InputError:
        return math.inf


def apply_devices(settings: DeviceSettings) -> None:
    """Set the environment and start TensorFlow's configuration; call it before anything else touches TensorFlow.

    Raises:
        InputError: when a share is too small for its GPU, or the GPU's memory cannot be had.
        RuntimeError: when TensorFlow already runs with other settings.
    """
    os.environ["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"  # numbers mean what Ray and nvidia-smi mean by them
    os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(settings.visible_devices)  # Ray hides no GPU from CPU work
    os.environ["OMP_NUM_THREADS"] = str(settings.threads)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # errors come as exceptions
    # TensorFlow leaves oneDNN off without AVX-512 VNNI, where ResNet50's steps take 0.6 to 0.65 of the time with it.
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    with _without_greetings():
        import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(settings.threads)
    tf.config.threading.set_inter_op_parallelism_threads(1)  # with its default, one thread took up to 1.4 CPUs
    found = tf.config.list_physical_devices("GPU")
    if len(found) < len(settings.visible_devices):
        log.warning(
            "GPUs %s were promised, but TensorFlow finds %d: the rest is computed on the CPU; look whether CUDA's "
            "libraries are installed (the extra `cuda`)",
            ", ".join(settings.visible_devices),
            len(found),
        )
    for gpu in found:
        megabytes = plan_memory(settings)
        if megabytes is None:
            tf.config.experimental.set_memory_growth(gpu, True)
        else:
            limit = tf.config.LogicalDeviceConfiguration(memory_limit=megabytes)
            tf.config.set_logical_device_configuration(gpu, [limit])


@contextmanager
def _without_greetings() -> Iterator[None]:
    """The process's standard error is turned away: TensorFlow 2.21 greets there whatever its log level."""
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def _ask_driver(field: str, device: str | None = None) -> list[str]:
    """One value for each GPU, or for the one named, in the order of its number; memory in MB."""
    command = ["nvidia-smi", f"--query-gpu={field}", "--format=csv,noheader,nounits"]
    command += [f"--id={device}"] if device else []
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.split()

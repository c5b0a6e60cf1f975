"""What a process may take of the machine's memory, what it has, and how to tell that there was not enough."""

import os
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")  # version 2: what a container may use
LARGE = 224  # pixels a side up to which numbers of images at once are meant


def own_bytes() -> int:
    """Memory that is this process's alone; 0 where the system does not tell.

    What it has mapped from files is left out: images and features are shared by all workers of a node, and the kernel
    takes their pages back when others need them.
    """
    try:
        _, resident, shared, *_ = Path("/proc/self/statm").read_text(encoding="ascii").split()
    except OSError:
        return 0
    return (int(resident) - int(shared)) * os.sysconf("SC_PAGE_SIZE")


def fair_share(cpus: float, cgroup: Path = CGROUP) -> int:
    """Bytes of memory for a worker with so many of the CPUs there are, a fifth left to others.

    Args:
        cpus: CPUs of the worker.
        cgroup: Folder that tells what this container may use of the machine, where it is in one.
    """
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    fair = total * min(1.0, cpus / (os.cpu_count() or 1))
    limit, quota = _words(cgroup / "memory.max"), _words(cgroup / "cpu.max")
    if limit and limit[0] != "max":
        known = quota and quota[0] != "max"  # microseconds in a period, and the period
        fair = min(fair, int(limit[0]) * (min(1.0, cpus * int(quota[1]) / int(quota[0])) if known else 1.0))
    return int(0.8 * fair)


def at_once(most: int, side: int) -> int:
    """Images of this height and width to compute at once: `most`, or where they are large as many as have the pixels of
    `most` images of 224. On a CPU nothing else bounds it: a process that takes too much is killed, not told.
    """
    return max(1, most * LARGE**2 // max(LARGE, side) ** 2)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether TensorFlow or Python ran out of memory; told by name, because TensorFlow may not have been imported."""
    return isinstance(error, MemoryError) or type(error).__name__ == "ResourceExhaustedError"


def _words(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="ascii").split()
    except OSError:
        return []

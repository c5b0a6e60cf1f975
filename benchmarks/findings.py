"""How findings are told: where and with what first, medians with their range, goals as reached or not."""

import os
import platform
import statistics
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path


def setting(*packages: str) -> str:
    """Date, machine, its load at this moment, and the versions of Python, Thawline and these packages."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9
    machine = f"{_processor()}, {len(os.sched_getaffinity(0))} cores, {memory:.0f} GB, load {os.getloadavg()[0]:.1f}"
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in ("thawline", *packages))
    return f"{datetime.now(UTC):%Y-%m-%d}; {machine}; Python {platform.python_version()}, {versions}"


def spread(values: Sequence[float], digits: int = 2) -> str:
    """Median, and from the least to the most."""
    middle, least, most = statistics.median(values), min(values), max(values)
    return f"{middle:.{digits}f} ({least:.{digits}f} to {most:.{digits}f})"


def verdict(goal: str, reached: bool) -> str:
    """A goal, and whether it was reached."""
    return f"goal {goal}: {'reached' if reached else 'not reached'}"


def _processor() -> str:
    with suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line for line in lines if line.startswith("model name")).partition(": ")[2]
    return platform.machine()

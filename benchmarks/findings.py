"""How findings are told: where and with what first, medians with their range, goals as reached or not."""

import os
import platform
import statistics
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path


def setting(*packages: str) -> str:
    """Date, machine, its load at this moment, and the versions of Python, Thawline and these packages."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9
    machine = f"{processor()}, {len(os.sched_getaffinity(0))} cores, {memory:.0f} GB, load {os.getloadavg()[0]:.1f}"
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in ("thawline", *packages))
    return f"{datetime.now(UTC):%Y-%m-%d}; {machine}; Python {platform.python_version()}, {versions}"


def spread(values: Sequence[float], digits: int = 2) -> str:
    """Median, and from the least to the most."""
    middle, least, most = statistics.median(values), min(values), max(values)
    return f"{middle:.{digits}f} ({least:.{digits}f} to {most:.{digits}f})"


def verdict(goal: str, reached: bool) -> str:
    """A goal, and whether it was reached."""
    return f"goal {goal}: {'reached' if reached else 'not reached'}"


def processor() -> str:
    """Its name, its model's number, and what it has for bfloat16."""
    described = Path("/proc/cpuinfo")
    first = described.read_text(encoding="utf-8").partition("\n\n")[0] if described.exists() else ""
    found = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in first.splitlines())}
    name = found.get("model name", platform.machine())
    short = sorted({"avx512f", "avx512_bf16", "amx_bf16"} & set(found.get("flags", "").split()))
    return f"{name} (model {found.get('model', 'unknown')}; {', '.join(short)})"

"""What a command and all that descends from it use: seconds, CPU seconds, memory. Linux."""

import os
import secrets
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

MARK = "PEERS_RUN"
LOOK_SECONDS = 0.5  # what a process that ends uses after its last look is not seen
TICK, PAGE = os.sysconf("SC_CLK_TCK"), os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class Usage:
    """Of one run: seconds from start to exit, CPU seconds of all processes, their largest memory together in bytes."""

    seconds: float
    cpu_seconds: float
    peak_bytes: int


def metered(command: Sequence[str], environment: Mapping[str, str], log: Path) -> Usage:
    """Run a command to its end.

    Raises:
        RuntimeError: when it fails; what it said is in `log`.
    """
    mark, over = secrets.token_hex(8), threading.Event()
    ticks: dict[int, int] = {}
    peak = 0

    def look() -> None:
        nonlocal peak
        while not over.wait(LOOK_SECONDS):
            resident = 0
            for process in _marked(mark):
                with suppress(OSError, IndexError, ValueError):
                    fields = (process / "stat").read_text().rpartition(")")[2].split()
                    ticks[int(process.name)] = int(fields[11]) + int(fields[12])
                    statm = (process / "statm").read_text().split()
                    resident += (int(statm[1]) - int(statm[2])) * PAGE  # without what is shared with others
            peak = max(peak, resident)

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    began = time.perf_counter()
    with log.open("w") as stream:
        code = subprocess.run(
            command, env={**os.environ, **environment, MARK: mark}, stdout=stream, stderr=stream, check=False
        ).returncode
    seconds = time.perf_counter() - began
    over.set()
    thread.join()
    if code:
        raise RuntimeError(f"{' '.join(command)} ended with exit code {code}; see {log}")
    return Usage(seconds, sum(ticks.values()) / TICK, peak)


def _marked(mark: str) -> list[Path]:
    sought = f"{MARK}={mark}".encode()
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if sought in (process / "environ").read_bytes():
                found.append(process)
    return found

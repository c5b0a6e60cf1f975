"""Processes that a trial left behind in its worker. Linux only; elsewhere nothing is known of them."""

import ctypes
import os
import signal
import time
from contextlib import suppress
from pathlib import Path

SECONDS = 2.0  # for what is killed to be gone
_SUBREAPER = 36  # PR_SET_CHILD_SUBREAPER in <linux/prctl.h>


def adopt_orphans() -> None:
    """From now on descendants that lose their parent become children of this process, whatever session they made."""
    with suppress(OSError, AttributeError):  # no such call here
        ctypes.CDLL(None).prctl(_SUBREAPER, 1, 0, 0, 0)


def end_children() -> int:
    """Kill every child of this process, and theirs, who become ours; how many there were."""
    ended: set[int] = set()
    end = time.monotonic() + SECONDS
    while (children := _children()) and time.monotonic() < end:
        for child in children:
            with suppress(ProcessLookupError, ChildProcessError):
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, os.WNOHANG)
        ended |= children
        time.sleep(0.005)
    return len(ended)


def _children() -> set[int]:
    own = str(os.getpid())
    found = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # gone meanwhile
            parent = stat.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[1]
            if parent == own:
                found.add(int(stat.parent.name))
    return found

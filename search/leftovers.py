"""Processes that come from here and must not outlive us, found by a mark in their environment.

Ray ends its own workers, and the children of most. Not those of a worker that was killed when they had made a session
of their own, and not those of a start that was interrupted.
"""

import os
import secrets
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

MARK = "THAWLINE_RAY"
SECONDS = 2.0  # for what is ended to be gone


@contextmanager
def no_leftovers() -> Iterator[None]:
    """Whatever is started in here, by whomever and however far removed, is killed at the end. Linux only."""
    mark = secrets.token_hex(8)
    before = os.environ.get(MARK)
    os.environ[MARK] = mark
    try:
        yield
    finally:
        os.environ.pop(MARK)
        if before is not None:
            os.environ[MARK] = before
        end = time.monotonic() + SECONDS
        while (processes := marked(mark)) and time.monotonic() < end:
            for process in processes:
                with suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
            time.sleep(0.02)


def marked(mark: str) -> list[int]:
    """Processes of this user that were born with this mark, this one left out."""
    sought = f"{MARK}={mark}".encode()
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # gone meanwhile, or somebody else's
            if sought in (folder / "environ").read_bytes().split(b"\0") and int(folder.name) != os.getpid():
                found.append(int(folder.name))
    return found

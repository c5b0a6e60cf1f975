"""One driver at a time on a study."""

import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from search.errors import ConfigurationError


@contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Hold the lock file; the kernel lets go of it when the process ends, however it ends.

    Raises:
        ConfigurationError: when another driver holds it, naming process and host.
    """
    with path.open("a+", encoding="utf-8") as stream:
        if not _acquired(stream):
            raise ConfigurationError(_held_by(path))
        stream.truncate(0)
        stream.write(json.dumps({"process": os.getpid(), "host": socket.gethostname(), "boot": boot_id()}))
        stream.flush()
        yield


def _acquired(stream: IO[str]) -> bool:
    """Tried for half a second: whoever only looks holds the lock for an instant."""
    for _ in range(10):
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(0.05)
        else:
            return True
    return False


def driver_at_work(path: Path) -> str | None:
    """Who holds the lock, as process and host; None when nobody does."""
    try:
        with path.open(encoding="utf-8") as stream:
            fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _holder(path)
    except FileNotFoundError:
        pass
    return None


def boot_id() -> str:
    """Names this boot of this machine, so that a process number from an earlier one is not mistaken; empty if
    unknown.
    """
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


def _held_by(path: Path) -> str:
    return (
        f"{path.parent.name}: one driver at a time may work on a study, but {_holder(path)} does; "
        "wait for it or stop it"
    )


def _holder(path: Path) -> str:
    try:
        holder = json.loads(path.read_text(encoding="utf-8"))
        return f"process {holder['process']} on {holder['host']}"
    except (OSError, ValueError, KeyError):
        return "another process"

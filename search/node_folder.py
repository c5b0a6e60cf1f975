"""The node folder: what a host that does not see a run folder keeps of it, shared by the workers of that node.

It has a folder and a lock for each study. A worker that lives holds the lock; what nobody holds, the next one removes.
"""

import fcntl
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from search.desk import Home

FORGET_SECONDS = 5.0  # for workers that are just ending


class OutOfReach(Exception):
    """What a trial needs could not be brought to its host. No trial's fault."""


def node_folder() -> Path:
    """Where this node keeps what it was brought, for its own user only.

    Raises:
        OutOfReach: when somebody else has made it.
    """
    named = os.environ.get("THAWLINE_NODE_FOLDER")
    folder = Path(named) if named else Path(tempfile.gettempdir()) / f"thawline-node-{os.getuid()}"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = folder.lstat()
    if found.st_uid != os.getuid() or not stat.S_ISDIR(found.st_mode) or found.st_mode & 0o022:
        raise OutOfReach(f"{folder} must be a folder that only this user can write; set THAWLINE_NODE_FOLDER to one")
    return folder


def forget(home: Home) -> None:
    """Remove what this node has of a study, once its workers are gone."""
    node, end = node_folder(), time.monotonic() + FORGET_SECONDS
    while not _remove_unused(node, home.study) and time.monotonic() < end:
        time.sleep(0.1)


def remove_abandoned(node: Path, but: str) -> None:
    """Remove what is left of studies whose workers and drivers were killed."""
    for lock in node.glob("*.lock"):
        if lock.stem != but:
            _remove_unused(node, lock.stem)


def in_use(node: Path, study: str) -> IO[str]:
    """Marks the study's folder as used for as long as the stream is open."""
    stream = (node / f"{study}.lock").open("a")
    fcntl.flock(stream, fcntl.LOCK_SH)
    (node / study).mkdir(exist_ok=True)
    return stream


def _remove_unused(node: Path, study: str) -> bool:
    """Remove the study's folder unless it is used; whether it is gone."""
    with (node / f"{study}.lock").open("a") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        shutil.rmtree(node / study, ignore_errors=True)
        return True


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """One worker of the node at a time."""
    with path.open("a") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield

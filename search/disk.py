"""What the file system under a run can do, tried out before anything relies on it."""

import fcntl
import os
import threading
import uuid
from pathlib import Path
from typing import IO

from search.errors import ConfigurationError
from search.whole_file import write_whole

_RENAMES = 10  # seen by a reader meanwhile; a rename that copies is caught by the first or second
_SIZE = 1 << 16  # bytes; large enough that copying takes a moment


def check_folder(folder: Path) -> None:
    """See that a file in the folder can be written, flushed, and replaced at once.

    Raises:
        ConfigurationError: when a reader can see half a rename.
        OSError: when nothing can be written.
    """
    if not _replaces_at_once(folder):
        raise ConfigurationError(
            f"storage: {folder} must be on a file system where a renamed file takes its new name at once, but half a "
            "file could be seen there; choose another folder, and give this one as `storage_copy`"
        )


def locks_work(folder: Path) -> bool:
    """Whether a lock that one process holds on a file keeps others from it; some network and FUSE systems say yes to
    all, or have no locks.
    """
    path = folder / ".locks.tmp"
    for _ in range(100):
        try:
            with path.open("a") as first, path.open("a") as second:  # NFS locks only what may be written
                if os.path.sameopenfile(first.fileno(), second.fileno()):
                    return _excludes(first, second)
        except FileNotFoundError:  # another start tried it out as well, and removed it in between
            continue
        finally:
            path.unlink(missing_ok=True)
    return False


def _excludes(first: IO[str], second: IO[str]) -> bool:
    try:
        for stream in (first, second):
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:  # at the first: another start is just trying it out
        return True
    except OSError:
        return False
    return False


def _replaces_at_once(folder: Path) -> bool:
    path = folder / f".{uuid.uuid4().hex}.tmp"
    contents = [bytes([letter]) * _SIZE for letter in (1, 2)]
    halves: list[int] = []
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            try:
                if path.read_bytes() not in contents:
                    halves.append(1)
            except OSError:
                halves.append(1)

    try:
        path.write_bytes(contents[0])
        reader = threading.Thread(target=read, daemon=True)
        reader.start()
        try:
            for turn in range(_RENAMES):
                beside = path.with_suffix(".new.tmp")
                beside.write_bytes(contents[turn % 2])
                os.replace(beside, path)
        finally:
            done.set()
            reader.join()
        write_whole(path, b"")  # and what is flushed can be
        return not halves
    finally:
        path.unlink(missing_ok=True)
        path.with_suffix(".new.tmp").unlink(missing_ok=True)

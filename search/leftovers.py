"""What a search must not leave behind: processes, found by a mark in their environment, and temporary folders.

Ray ends its own workers, and the children of most. Not those of a worker that was killed when they had made a session
of their own, and not those of a start that was interrupted.
"""

import os
import secrets
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Set
from contextlib import contextmanager, suppress
from pathlib import Path

MARK = "THAWLINE_RAY"
SECONDS = 2.0  # for what is killed to be gone
LOOKS = 3  # in a row that find nothing
_folders: set[Path] = set()


@contextmanager
def no_leftovers() -> Iterator[None]:
    """Whatever is started in here, by whomever and however far removed, is killed at the end. Linux only."""
    before, earlier = os.environ.get(MARK), _children()
    os.environ[MARK] = secrets.token_hex(8)
    try:
        yield
    finally:
        kill_marked(os.environ.pop(MARK), earlier)
        if before is not None:
            os.environ[MARK] = before


@contextmanager
def temporary_folder(prefix: str, parent: str | None = None) -> Iterator[Path]:
    """A folder that only this user can enter, removed at the end."""
    with tempfile.TemporaryDirectory(prefix=prefix, dir=parent, ignore_cleanup_errors=True) as name:
        folder = Path(name)
        _folders.add(folder)
        try:
            yield folder
        finally:
            _folders.discard(folder)


def end_at_once(message: str) -> None:
    """End this process with exit code 1, from any thread, when its main thread may be held for ever.

    Everything that counts is in the ledger by then, and the kernel lets go of locks.
    """
    restored = "\x1b[?25h" * sys.stderr.isatty()  # a live view hides the cursor
    os.write(2, f"{restored}stopped: {message}\n".encode())
    if MARK in os.environ:
        kill_marked(os.environ[MARK])
    for folder in _folders:
        shutil.rmtree(folder, ignore_errors=True)
    os._exit(1)


def kill_marked(mark: str, earlier: Set[int] | None = None) -> None:
    """Kill the processes that were born with this mark, until three looks in a row find none.

    One look is not enough, because a process that becomes another program shows nothing for a moment. Where it is known
    which children were there `earlier`, the others count too: a child that a signal cut off from its start has the mark
    only once it runs its own program.
    """
    end = time.monotonic() + SECONDS
    empty = 0
    while empty < LOOKS and time.monotonic() < end:
        processes = _marked(mark) | (set() if earlier is None else _children() - earlier)
        empty = 0 if processes else empty + 1
        for process in processes:
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        time.sleep(0.02)


def _marked(mark: str) -> set[int]:
    sought = f"{MARK}={mark}".encode()
    found = set()
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # gone meanwhile, or somebody else's
            if sought in (folder / "environ").read_bytes().split(b"\0") and int(folder.name) != os.getpid():
                found.add(int(folder.name))
    return found


def _children() -> set[int]:
    """This process's children, but for those that have ended."""
    found = set()
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            state, parent = (folder / "stat").read_bytes().rpartition(b")")[2].split()[:2]
            if int(parent) == os.getpid() and state != b"Z":
                found.add(int(folder.name))
    return found

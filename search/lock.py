"""One driver at a time on a study.

The kernel's lock on the lock file is let go of when its process ends, however it ends. Where the file system has no
such locks, or has them for each machine alone, the file itself says who holds it: host, boot and process, and a
heartbeat that others can watch. Its holder looks at each beat whether it still does: another machine takes over from
one that stood still.
"""

import fcntl
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Self

from search.disk import locks_work
from search.errors import ConfigurationError
from search.leftovers import end_at_once
from search.whole_file import write_fully, write_whole

BEAT_SECONDS = 3.0
PATIENCE_SECONDS = 4 * BEAT_SECONDS  # a holder on another machine that shows no beat for so long is dead
_SETTLE_SECONDS = 0.5  # in which two that took over an unlockable file at once see each other


@dataclass(frozen=True)
class Holder:
    """Who holds a lock, as its file says.

    Attributes:
        host: Name of the machine.
        boot: Names that machine's boot, so that a process number from an earlier one is not mistaken.
        process: Its number there.
        born: When it started, in the kernel's ticks since the boot: process numbers are used again.
        token: Of this one holding.
        beat: Counts up while the holder lives.
    """

    host: str
    boot: str
    process: int
    born: int
    token: str
    beat: int = 0

    @classmethod
    def here(cls) -> Self:
        return cls(socket.gethostname(), boot_id(), os.getpid(), _born(os.getpid()), uuid.uuid4().hex)

    @property
    def is_local(self) -> bool:
        """Whether it is of this machine's present boot, so that its process can be looked for."""
        return (self.host, self.boot) == (socket.gethostname(), boot_id()) and bool(self.boot)

    def __str__(self) -> str:
        return f"process {self.process} on {self.host}"


@contextmanager
def exclusive(path: Path) -> Iterator[Callable[[], None]]:
    """Hold the lock file; it is removed in the end.

    Yields:
        What raises the same error as soon as another holds it: two machines whose locks are their own, and that start
        at the same instant, both come so far.

    Raises:
        ConfigurationError: when another driver holds it, naming process and host.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    hold = _hold_by_kernel if locks_work(path.parent) else _hold_by_file
    with hold(path, Holder.here()) as (descriptor, holder), _beating(path, descriptor, holder):
        yield lambda: _check_ours(path, holder, descriptor)


def driver_at_work(path: Path) -> str | None:
    """Who holds the lock, as process and host; None when nobody does. Waits for a heartbeat when the holder is on
    another machine.
    """
    try:
        with path.open(encoding="utf-8") as stream:
            fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _named(path)
    except OSError:  # no file, or no locks
        pass
    # Where locks work, a holder on this machine would have shown; trying that out would write into the folder.
    return _named(path) if _lives(path, kernel_locks=False) else None


def boot_id() -> str:
    """Names this boot of this machine; empty if unknown."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


@contextmanager
def _hold_by_kernel(path: Path, holder: Holder) -> Iterator[tuple[int, Holder]]:
    descriptor = _locked(path)
    try:
        if _lives(path, kernel_locks=True):  # its kernel's locks are not ours: a shared folder
            raise ConfigurationError(_held_by(path))
        try:
            _sign(descriptor, holder)
            yield descriptor, holder
        finally:
            with suppress(ConfigurationError):
                _check_ours(path, holder, descriptor)
                path.unlink(missing_ok=True)  # while it is locked: whoever waits for it sees that it is gone
    finally:
        os.close(descriptor)


def _locked(path: Path) -> int:
    """A descriptor with the lock. Tried for half a second: whoever only looks holds the lock for an instant."""
    for _ in range(10):
        path.parent.mkdir(parents=True, exist_ok=True)  # a study that was refused takes its folder away
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except FileNotFoundError:
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(descriptor), path.stat()):
                return descriptor
        except FileNotFoundError:  # removed by the one that held it, while this one waited
            pass
        except BlockingIOError:
            time.sleep(0.05)
        os.close(descriptor)
    raise ConfigurationError(_held_by(path))


@contextmanager
def _hold_by_file(path: Path, holder: Holder) -> Iterator[tuple[None, Holder]]:
    """Without locks: whose token stands in the file after a moment, holds it."""
    if _lives(path, kernel_locks=False):
        raise ConfigurationError(_held_by(path))
    write_whole(path, _text(holder))
    time.sleep(_SETTLE_SECONDS)
    if not _is_ours(path, holder):
        raise ConfigurationError(_held_by(path))
    try:
        yield None, holder
    finally:
        if _is_ours(path, holder):
            path.unlink(missing_ok=True)


@contextmanager
def _beating(path: Path, descriptor: int | None, holder: Holder) -> Iterator[None]:
    """Counts up in the lock file from a thread of its own, until the block ends; ends the process if the file is
    another's. Whoever looks before it writes goes on only if it wrote last, so of two exactly one does.
    """
    done = threading.Event()

    def beat() -> None:
        now = holder
        while not done.wait(BEAT_SECONDS):
            try:
                _check_ours(path, holder, descriptor)
            except ConfigurationError as error:
                end_at_once(str(error))
                return
            except OSError:  # a network that is away for a moment: nothing is known, and nothing could be written
                continue
            now = replace(now, beat=now.beat + 1)
            with suppress(OSError):  # a full disk: the next beat may come through
                _sign(descriptor, now) if descriptor is not None else write_whole(path, _text(now))

    thread = threading.Thread(target=beat, name="lock-heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _lives(path: Path, *, kernel_locks: bool) -> bool:
    """Whether the holder that the file names is alive, when the kernel does not say so."""
    holder = _read(path)
    if holder is None:
        return False
    if holder.is_local:
        return not kernel_locks and holder.born == _born(holder.process)
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        time.sleep(BEAT_SECONDS / 10)
        now = _read(path)
        if now != holder:
            return now is not None
    return False


def _born(process: int) -> int:
    """When a process started, in ticks since the boot; 0 when there is none (a zombie counts as none)."""
    try:
        state, *rest = Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except (OSError, UnicodeDecodeError):
        return 0
    return 0 if state == "Z" else int(rest[18])


def _sign(descriptor: int, holder: Holder) -> None:
    text = _text(holder)
    write_fully(descriptor, text)
    os.ftruncate(descriptor, len(text))  # of what stood there before


def _text(holder: Holder) -> bytes:
    return json.dumps(asdict(holder)).encode() + b"\n"


def _read(path: Path) -> Holder | None:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return Holder(**{field.name: found[field.name] for field in fields(Holder)})
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _check_ours(path: Path, holder: Holder, descriptor: int | None) -> None:
    """That nobody else holds it, or has in the meantime; a file that says nothing readable is nobody's.

    Raises:
        ConfigurationError: naming who does, where that is known.
    """
    found = _read(path)
    if found is not None and found.token != holder.token:
        raise ConfigurationError(_held_by(path))
    if found is None and (not path.exists() if descriptor is None else os.fstat(descriptor).st_nlink == 0):
        raise ConfigurationError(
            f"{path}: must stay while a driver works on the study, but it is gone: another one had the study "
            "meanwhile, or somebody removed the file"
        )


def _is_ours(path: Path, holder: Holder) -> bool:
    found = _read(path)
    return found is not None and found.token == holder.token


def _named(path: Path) -> str:
    return str(_read(path) or "another process")


def _held_by(path: Path) -> str:
    return (
        f"{path.parent.name}: one driver at a time may work on a study, but {_named(path)} does; wait for it or stop it"
    )

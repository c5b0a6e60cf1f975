"""The n-th call that writes fails: every write, flush, rename and new folder of Python code below a folder counts."""

import builtins
import errno
import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock


class FailingDisk:
    """Counts what is written below `folder` and lets call number `failing` (1, 2, 3 …; 0: none) fail, once or for ever.

    Attributes:
        calls: What was called so far.
    """

    def __init__(self, folder: Path, failing: int, code: int = errno.ENOSPC, lasting: bool = False):
        self._folder, self._failing, self._code, self._lasting = str(folder), failing, code, lasting
        self._names: dict[int, str] = {}
        self.calls: list[str] = []

    @property
    def failed(self) -> bool:
        return 0 < self._failing <= len(self.calls)

    def call(self, what: str, path: Any) -> None:
        """Count a call on a path; raise where its turn has come."""
        if not str(path).startswith(self._folder):
            return
        self.calls.append(what)
        if len(self.calls) == self._failing or (self._lasting and self.failed):
            raise OSError(self._code, os.strerror(self._code), str(path))


@contextmanager
def failing_disk(disk: FailingDisk) -> Iterator[FailingDisk]:
    """While the block runs, files are opened, written, flushed and renamed through `disk`."""
    real = {
        name: getattr(os, name)
        for name in ("open", "close", "write", "pwrite", "fsync", "ftruncate", "replace", "rename", "mkdir")
    }
    names: dict[int, str] = {}

    class File(io.FileIO):
        def write(self, data: Any) -> int:
            disk.call("write", self.name)
            return super().write(data)

    def open_file(file: Any, mode: str = "r", *arguments: Any, **options: Any) -> Any:
        if not isinstance(file, str | os.PathLike) or not set(mode) & set("wax+"):
            return real_open(file, mode, *arguments, **options)
        disk.call("open", os.fspath(file))
        return _opened(File(os.fspath(file), mode.replace("b", "").replace("t", "")), mode, *arguments, **options)

    def os_open(path: Any, flags: int, *arguments: Any, **options: Any) -> int:
        if flags & (os.O_WRONLY | os.O_RDWR):
            disk.call("open", path)
        descriptor = real["open"](path, flags, *arguments, **options)
        names[descriptor] = str(path)
        return descriptor

    def on_descriptor(name: str) -> Callable[..., Any]:
        def called(descriptor: Any, *arguments: Any) -> Any:
            number = descriptor if isinstance(descriptor, int) else descriptor.fileno()
            path = names.get(number) or str(Path(f"/proc/self/fd/{number}").readlink())
            disk.call(name, path)
            return real[name](descriptor, *arguments)

        return called

    def on_paths(name: str) -> Callable[..., Any]:
        def called(path: Any, *arguments: Any, **options: Any) -> Any:
            disk.call(name, path)
            return real[name](path, *arguments, **options)

        return called

    def os_close(descriptor: int) -> None:
        names.pop(descriptor, None)
        real["close"](descriptor)

    real_open = builtins.open
    patched = {"open": os_open, "close": os_close} | {
        name: on_descriptor(name) for name in ("write", "pwrite", "fsync", "ftruncate")
    }
    patched |= {name: on_paths(name) for name in ("replace", "rename", "mkdir")}
    opening = {"open": open_file}
    with (
        mock.patch.multiple(os, **patched),
        mock.patch.multiple(io, **opening),
        mock.patch.multiple(builtins, **opening),
    ):
        yield disk


def _opened(
    raw: io.FileIO, mode: str, buffering: int = -1, encoding: str | None = None, *rest: Any, **options: Any
) -> Any:
    if "b" in mode and buffering == 0:
        return raw
    buffered = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
    return buffered if "b" in mode else io.TextIOWrapper(buffered, encoding, *rest, **options)

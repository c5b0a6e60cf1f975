"""Ctrl-C and SIGTERM end a driver at once, and once."""

import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import Any


class Interrupted(BaseException):
    """The driver was told to stop; the study can be resumed.

    Attributes:
        exit_code: 128 plus the signal's number.
    """

    def __init__(self, number: int):
        self.exit_code = 128 + number
        super().__init__(signal.Signals(number).name)


@contextmanager
def interruptible() -> Iterator[None]:
    """SIGINT and SIGTERM raise Interrupted here, once; what comes after is ignored, because ending is under way."""
    received: list[Interrupted] = []

    def interrupt(number: int, frame: FrameType | None) -> None:
        for each in (signal.SIGINT, signal.SIGTERM):
            signal.signal(each, signal.SIG_IGN)
        received.append(Interrupted(number))
        raise received[0]

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in before:
        signal.signal(number, interrupt)
    try:
        yield
    except BaseException:
        if received:  # native code on the way may have turned it into something else: Ray makes it a SystemError
            raise received[0] from None
        _put_back(before)
        raise
    if received:  # or swallowed it
        raise received[0]
    _put_back(before)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """SIGINT and SIGTERM wait until this is done: for what takes no time and must not be left half done. Of the main
    thread, which is the one that hears them.
    """
    received: list[int] = []
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in before:  # a mask would not do: the kernel gives a signal to whichever thread takes it
        signal.signal(number, lambda number, frame: received.append(number))
    try:
        yield
    finally:
        _put_back(before)
        if received:
            signal.raise_signal(received[0])


def _put_back(handlers: Mapping[signal.Signals, Any]) -> None:
    for number, handler in handlers.items():
        signal.signal(number, handler)

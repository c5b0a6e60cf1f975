"""Questions to places that may never answer, asked by threads that nobody has to wait for, and that wait for nobody."""

import logging
import os
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import NoReturn, TypeVar

Answer = TypeVar("Answer")
_NAME = "asking"


def unheard(say: Callable[[str], None]) -> Callable[[str], None]:
    """`say` for threads that must go on whether or not anybody can be told: a terminal may have hung up."""

    def try_to_say(text: str) -> None:
        with suppress(Exception):
            say(text)

    return try_to_say


def answer_of(ask: Callable[[], Answer], seconds: float | None = None) -> Answer:
    """What `ask` returns or raises. Signals are heard meanwhile, which a call into a library would hold up.

    Args:
        ask: Called in a thread of its own.
        seconds: How long to wait; None: for ever.

    Raises:
        TimeoutError: when there is no answer in time; the thread goes on, and what it finds is dropped.
    """
    answers, failures = list[Answer](), list[BaseException]()

    def run() -> None:
        try:
            answers.append(ask())
        except BaseException as error:  # noqa: BLE001 - raised where it was asked
            failures.append(error)

    thread = asking(run)
    thread.start()
    thread.join(seconds)
    if failures:
        raise failures[0]
    if not answers:
        raise TimeoutError(f"there was no answer within {seconds:.0f} s")
    return answers[0]


def asking(run: Callable[[], None]) -> threading.Thread:
    """A thread, not yet started, that the end of the process does not wait for if it ends by `leave`."""
    return threading.Thread(target=run, name=_NAME, daemon=True)


def leave(code: int) -> NoReturn:
    """End the process; where somebody still waits for an answer, at once.

    pyarrow's own last act is to wait for what it has asked a bucket: 30 to 60 s when that has gone silent (measured
    2026-11-25).
    """
    if any(thread.name == _NAME for thread in threading.enumerate()):
        logging.shutdown()
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                stream.flush()
        os._exit(code)
    sys.exit(code)

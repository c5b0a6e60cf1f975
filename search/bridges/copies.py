"""Other places that a running study is written to: a thread of the driver's reads along in the ledger and tells them.

They are copies. What slows or breaks one of them slows and breaks no trial: it is said once, and that copy ends.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from operator import methodcaller
from pathlib import Path
from typing import Protocol

from search.addresses import check_no_secrets, without_users
from search.answers import unheard
from search.config import Logging, StudyConfig
from search.errors import ConfigurationError
from search.follow import Follower, Happening
from search.history import History
from search.paths import StudyPaths

PAUSE = 1.0  # seconds between looks
PATIENCE = 3.0  # seconds at the end for what has not been told; an interrupted driver must be gone soon


class Copy(Protocol):
    """Takes the events of a study from the first one on, in every session anew, and writes each down once."""

    def open(self) -> None:
        """Get ready; called in the thread, before the first event."""

    def take(self, happening: Happening, history: History) -> None:
        """Write down an event; the history has it."""

    def flush(self) -> None:
        """All events that there are so far were taken."""

    def close(self) -> None:
        """No more will come in this session."""


def logging_problems(wanted: Logging) -> list[str]:
    """Packages that are missing for what is wanted, and a password that everybody would see."""
    needed = {"mlflow": ("mlflow", bool(wanted.mlflow)), "tensorboard": ("tensorboardX", wanted.tensorboard)}
    problems = []
    try:
        check_no_secrets("logging.mlflow", str(wanted.mlflow))
    except ConfigurationError as error:
        problems += error.problems
    return problems + [
        f"logging.{name}: needs the package {package}: pip install "
        + ("'thawline[mlflow]'" if name == "mlflow" else package)
        for name, (package, asked) in needed.items()
        if asked and not find_spec(package)
    ]


@contextmanager
def copied_to_bridges(config: StudyConfig, paths: StudyPaths, say: Callable[[str], None]) -> Iterator[None]:
    """The study's events go where its `logging` says, as long as this lasts."""
    copies: list[Copy] = []
    if config.logging.tensorboard:
        from search.bridges.tensorboard import TensorBoardCopy

        copies.append(TensorBoardCopy(config, paths.tensorboard))
    if config.logging.mlflow:
        from search.bridges.mlflow_runs import MlflowCopy

        address = config.logging.mlflow
        copies.append(MlflowCopy(config, f"sqlite:///{paths.mlflow}" if address is True else str(address)))
    if not copies:
        yield
        return
    bridges = Bridges(paths.ledger, copies, say)
    bridges.start()
    try:
        yield
    finally:
        bridges.finish()


class Bridges(threading.Thread):
    """Tells copies what the ledger says."""

    def __init__(self, ledger: Path, copies: Sequence[Copy], say: Callable[[str], None]):
        super().__init__(name="thawline-bridges", daemon=True)
        self._follower = Follower(ledger)
        self._copies = list(copies)
        self._say = unheard(say)
        self._over = threading.Event()

    def run(self) -> None:
        self._tell(methodcaller("open"))
        over = False
        while self._copies and not over:
            over = self._over.wait(PAUSE)  # once more after the end: the last events are told, too
            self._pass_on()
        self._tell(methodcaller("close"))

    def finish(self, patience: float = PATIENCE) -> None:
        """Tell what is left, but do not wait for long: the next session tells it again."""
        self._over.set()
        self.join(patience)

    def _pass_on(self) -> None:
        try:
            for happening in self._follower.new():
                self._tell(methodcaller("take", happening, self._follower.history))
        except Exception as error:  # noqa: BLE001 - the driver says what is wrong with its ledger
            self._say(f"nothing more is copied: {error}")
            self._copies.clear()
        self._tell(methodcaller("flush"))

    def _tell(self, what: Callable[[Copy], object]) -> None:
        for copy in list(self._copies):
            try:
                what(copy)
            except Exception as error:  # noqa: BLE001 - whatever it is, the search goes on
                self._copies.remove(copy)
                with suppress(Exception):
                    copy.close()
                first = next(iter(str(error).splitlines()), "")
                self._say(without_users(f"{copy} ends, the search goes on: {type(error).__name__}: {first}"))

"""Looking at a study that another process drives: its ledger, its trials' logs. Nothing here disturbs the driver."""

import re
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from search.config import StudyConfig
from search.errors import ConfigurationError
from search.events import SessionOpened, TrialKey
from search.follow import Follower
from search.lock import driver_at_work
from search.paths import StudyPaths
from search.view.progress import View

PAUSE = 1.0  # seconds between looks
_NUMBER = re.compile(r"([0-9]{1,9})(?:\.([0-9]{1,9}))?")


@contextmanager
def until_interrupted() -> Iterator[None]:
    """Ctrl-C is how looking ends: it is no failure."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    except KeyboardInterrupt:
        pass
    finally:
        signal.signal(signal.SIGINT, before)


def watch_study(paths: StudyPaths, view: View, pause: Callable[[], None] = lambda: time.sleep(PAUSE)) -> None:
    """Show a study until its driver ends; at once, where none is at work.

    Args:
        paths: The study.
        view: Is told what was known and everything that comes.
        pause: Waits between two looks.
    """
    follower = Follower(paths.ledger)
    follower.catch_up()
    with view:
        view.watch(StudyConfig.load(paths.study_file), follower.history, _age(follower))
        while True:
            view.at_work = driver_at_work(paths.lock) is not None  # before the events: the last ones are read, too
            for happening in follower.new():
                if isinstance(happening.event, SessionOpened):  # which may have been given another budget
                    view.watch(StudyConfig.load(paths.study_file), follower.history)
                view.happened(happening.event)
            if not view.at_work:
                return
            pause()


def trial_log(paths: StudyPaths, trial: str) -> Path:
    """The log file of a trial (`7`) or of a rerun (`7.1`).

    Raises:
        ConfigurationError: when it is neither, or has no log; the trials that have one are named.
    """
    key = _key(trial)
    if key is None:
        raise ConfigurationError(f"TRIAL: must be a trial's number, such as 7, or a rerun's, 7.1, but got {trial!r}")
    path = paths.trial(*key) / "log.txt"
    if not path.is_file():
        found = sorted(known for log in paths.trials.glob("*/log.txt") if (known := _key(log.parent.name)))
        there = ", ".join(map(str, found[-20:])) or "none"
        raise ConfigurationError(f"trial {key}: must have a log, but {path} is not there; with logs: {there}")
    return path


def follow_log(
    path: Path, paths: StudyPaths, trial: str, pause: Callable[[], None] = lambda: time.sleep(PAUSE)
) -> Iterator[str]:
    """The log's text as it grows, until the trial has ended or nobody works on the study."""
    follower, key = Follower(paths.ledger), _key(trial)
    with path.open(encoding="utf-8", errors="replace") as log:
        while True:
            follower.catch_up()
            record = follower.history.trials.get(key) if key else None
            over = record is None or record.ended or driver_at_work(paths.lock) is None
            if text := log.read():
                yield text
            if over:
                return
            pause()


def _age(follower: Follower) -> float:
    return max(0.0, time.time() - follower.last.at) if follower.last else 0.0


def _key(trial: str) -> TrialKey | None:
    number = _NUMBER.fullmatch(trial)
    return TrialKey(int(number[1]), int(number[2] or 0)) if number else None

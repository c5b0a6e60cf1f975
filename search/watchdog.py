"""Notices workers that hang: too long without a word, measured in time in which this process was awake."""

import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

LONGEST_STEP = 1.0  # seconds between two looks; what is more was a pause of the driver, not of its workers
FIRST_EPOCH = 6 * 3600.0  # seconds; set-up, tracing and kept features come before it
LATER_EPOCHS = 600.0  # seconds
SLOWER = 20.0  # times the slowest epoch so far
ANYBODYS = 2.0  # times the slowest of all trials: the next epoch may be the one that makes features for the others


class AwakeClock:
    """Seconds in which this process was awake. A driver that was stopped, or its whole machine, did not listen."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, longest_step: float = LONGEST_STEP):
        self._clock = clock
        self._longest = longest_step
        self._last = clock()
        self._awake = 0.0

    def read(self) -> float:
        """Must be called more often than the longest step for time to pass in full."""
        now = self._clock()
        self._awake += min(now - self._last, self._longest)
        self._last = now
        return self._awake


def patience(setting: float | None, own: float, any_trial: float) -> float:
    """Seconds without a word after which a worker is taken to hang.

    Args:
        setting: `budget.silence_seconds`, which counts when it is given.
        own: The trial's own slowest epoch so far, in seconds; 0 before its first.
        any_trial: The slowest of all trials.
    """
    if setting is not None:
        return setting
    if not own:
        return max(FIRST_EPOCH, SLOWER * any_trial)
    return max(LATER_EPOCHS, SLOWER * own, ANYBODYS * any_trial)


@dataclass
class Watchdog:
    """What was last heard of each running trial; times from one `AwakeClock`.

    Attributes:
        setting: `budget.silence_seconds`.
        slowest_of_all: Seconds of the slowest epoch of any trial, those of earlier sessions included.
    """

    setting: float | None = None
    slowest_of_all: float = 0.0
    _heard: dict[str, float] = field(default_factory=dict)
    _slowest: dict[str, float] = field(default_factory=dict)

    def watch(self, trials: Collection[str], now: float) -> None:
        """These trials, and no others, have workers now; listening begins where it has not."""
        for each in (self._heard, self._slowest):
            for gone in each.keys() - trials:
                del each[gone]
        for trial in trials:
            self._heard.setdefault(trial, now)

    def heard(self, trial: str, now: float, epoch: bool) -> None:
        """A word came; `epoch`: it was the end of one."""
        took = now - self._heard.get(trial, now)
        if epoch:
            self._slowest[trial] = max(self._slowest.get(trial, 0.0), took)
            self.slowest_of_all = max(self.slowest_of_all, took)
        self._heard[trial] = now

    def hanging(self, now: float) -> dict[str, float]:
        """Trials of which nothing was heard for too long, and for how many seconds."""
        return {
            trial: now - heard
            for trial, heard in self._heard.items()
            if now - heard > patience(self.setting, self._slowest.get(trial, 0.0), self.slowest_of_all)
        }

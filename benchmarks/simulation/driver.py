"""The driver of a virtual cluster.

`RealDriver` is the product's own study, sampler, pruner, ledger and courier, each call measured; `RecordedDriver` gives
the same answers again and takes the time that was measured. So decisions follow from the seed alone, and time from
measurements.
"""

import math
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from search.config import StudyConfig
from search.events import Event
from search.ledger import Ledger
from search.study import Study
from search.tune_bridge import Searcher, TrialScheduler, _Courier
from search.watchdog import AwakeClock

FINISHED = Searcher.FINISHED
NOMINAL = {"ask": 0.012, "started": 0.001, "epoch": 0.002}  # seconds of the driver that decide who speaks first


@dataclass
class Work:
    """A trial on a worker."""

    name: str
    number: int
    parameters: Mapping[str, Any]
    seed: int
    epoch: int  # that is done next


class Driver(Protocol):
    """Answers, and the seconds that each took."""

    def ask(self, name: str, now: float) -> tuple[Work | str | None, float]: ...
    def tell(self, work: Work, message: dict[str, Any], now: float) -> tuple[bool, float]: ...
    def lose(self, work: Work, now: float) -> None: ...


@dataclass
class Measured:
    """What calls of one kind took: by key (trial, epoch), seconds by the clock and of the processor, and of these the
    commit's.
    """

    wall: dict[tuple[int, int], float] = field(default_factory=dict)
    cpu: dict[tuple[int, int], float] = field(default_factory=dict)
    commit: dict[tuple[int, int], float] = field(default_factory=dict)


class TimedLedger(Ledger):
    """The ledger, and what its appends took of the processor."""

    spent = 0.0

    def append(self, *events: Event) -> None:
        began = time.process_time()
        super().append(*events)
        self.spent += time.process_time() - began


class RealDriver:
    """The product's own decisions, durable as ever; only the trainings are pretended."""

    def __init__(self, config: StudyConfig, ledger: TimedLedger, workers: int):
        self.now = 0.0
        self._ledger = ledger
        self._study = Study(config, ledger, clock=lambda: self.now)
        self.courier = _Courier(self._study, {}, workers, clock=AwakeClock(lambda: self.now, math.inf))
        self.measured: dict[str, Measured] = defaultdict(Measured)

    def ask(self, name: str, now: float) -> tuple[Work | str | None, float]:
        self.now = now
        given = self._measure("ask", lambda: self.courier.next(name), lambda _: (self.courier.keys[name].number, 0))
        if not isinstance(given, dict):
            return given, 0.0
        trial = given["trial"]
        work = Work(name, trial["key"][0], trial["parameters"], trial["seed"], trial["epochs_reported"] + 1)
        return work, NOMINAL["ask"]

    def tell(self, work: Work, message: dict[str, Any], now: float) -> tuple[bool, float]:
        self.now = now
        kind = message["kind"]
        verdict = self._measure(kind, lambda: self._deliver(work.name, message), lambda _: (work.number, work.epoch))
        if verdict == TrialScheduler.STOP:
            self.courier.over(work.name, error=False)
        return verdict == TrialScheduler.CONTINUE, NOMINAL[kind]

    def lose(self, work: Work, now: float) -> None:
        self.now = now
        self.courier.errors[work.name] = "its node has died"
        self.courier.over(work.name, error=True)

    def _deliver(self, name: str, message: dict[str, Any]) -> str:
        self.courier.hanging(self.courier.keys)  # as in each of Tune's rounds
        return self.courier.deliver(name, message)

    def _measure(self, kind: str, call: Callable[[], Any], key: Callable[[Any], tuple[int, int]]) -> Any:
        self._ledger.spent = 0.0
        wall, cpu = time.perf_counter(), time.process_time()
        result = call()
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        if isinstance(result, dict | str) and result != FINISHED:
            into, named = self.measured[kind], key(result)
            into.wall[named], into.cpu[named], into.commit[named] = wall, cpu, self._ledger.spent
        return result


class RecordedDriver:
    """What a real driver decided, once more; it takes the seconds that are given for each call."""

    def __init__(self, courses: list[tuple[Work, int]], seconds: Mapping[str, Mapping[tuple[int, int], float]]):
        self._courses = courses
        self._seconds = seconds
        self._next = 0

    def ask(self, name: str, now: float) -> tuple[Work | str | None, float]:
        if self._next == len(self._courses):
            return FINISHED, 0.0
        first, _ = self._courses[self._next]
        self._next += 1
        return Work(name, first.number, first.parameters, first.seed, 1), self._seconds["ask"][first.number, 0]

    def tell(self, work: Work, message: dict[str, Any], now: float) -> tuple[bool, float]:
        goes_on = message["kind"] == "started" or work.epoch < self._courses[work.number][1]
        return goes_on, self._seconds[message["kind"]][work.number, work.epoch]

    def lose(self, work: Work, now: float) -> None:
        raise NotImplementedError("recorded courses know no losses")

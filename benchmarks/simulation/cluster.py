"""A cluster in virtual time: workers that train by a table, and one driver that answers them one after the other.

Two drivers fit: `RealDriver` is the product's own study, sampler, pruner, ledger and courier, each call measured;
`RecordedDriver` gives the same answers again and takes the time that was measured. So decisions follow from the seed
alone, and time from measurements.
"""

import heapq
import math
import random
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Protocol

from search.config import StudyConfig
from search.events import Event
from search.ledger import Ledger
from search.sampling import derive_seed
from search.study import Study
from search.tune_bridge import Searcher, TrialScheduler, _Courier
from search.watchdog import AwakeClock

NOMINAL = {"ask": 0.012, "started": 0.001, "epoch": 0.002}  # seconds of the driver that decide who speaks first


@dataclass(frozen=True)
class Cluster:
    """What a virtual cluster is like; times in seconds.

    Attributes:
        workers: Each trains one trial at a time.
        cold_start: Of a worker's process: TensorFlow and Keras.
        warm_start: From a trial's configuration to its first epoch.
        tracing: More for the first epoch of a freeze depth on a worker.
        latency: Of a message between worker and driver.
        ray: What Ray Tune takes of the driver for each message, beside our own part.
        loss_per_hour: Losses of a worker, on average.
        restart: Until a lost worker is there again.
        link: Bytes per second at which checkpoints reach the driver's host; None: the run folder is shared.
    """

    workers: int
    cold_start: float = 10.0
    warm_start: float = 0.3
    tracing: float = 7.0
    latency: float = 0.001
    ray: float = 0.0058
    loss_per_hour: float = 0.0
    restart: float = 12.0
    link: float | None = None


class Trials(Protocol):
    """How trials go: pure functions of their configuration."""

    def seconds(self, parameters: Mapping[str, Any], epoch: int) -> float: ...
    def metrics(self, parameters: Mapping[str, Any], seed: int, epoch: int) -> dict[str, float]: ...
    def checkpoint_bytes(self, parameters: Mapping[str, Any]) -> float: ...


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
        if isinstance(result, dict | str) and result != Searcher.FINISHED:
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
            return Searcher.FINISHED, 0.0
        first, _ = self._courses[self._next]
        self._next += 1
        return Work(name, first.number, first.parameters, first.seed, 1), self._seconds["ask"][first.number, 0]

    def tell(self, work: Work, message: dict[str, Any], now: float) -> tuple[bool, float]:
        goes_on = message["kind"] == "started" or work.epoch < self._courses[work.number][1]
        return goes_on, self._seconds[message["kind"]][work.number, work.epoch]

    def lose(self, work: Work, now: float) -> None:
        raise NotImplementedError("recorded courses know no losses")


@dataclass
class Outcome:
    """What became of the workers' time.

    Attributes:
        workers: How many there were.
        last_ask: When the last trial was asked for; until then there was work.
        end: When the last trial ended.
        epochs: Begin, end and trial of each epoch, tracing left out.
        tracing: Begin and end of what was traced.
        driver: Seconds in which the driver was busy.
        bytes: Of checkpoints.
        courses: Each trial as asked for, and its last epoch.
        ends: Epochs done by all, time and trial, whenever a trial ended.
    """

    workers: int
    last_ask: float = 0.0
    end: float = 0.0
    epochs: list[tuple[float, float, int]] = field(default_factory=list)
    tracing: list[tuple[float, float]] = field(default_factory=list)
    driver: float = 0.0
    bytes: float = 0.0
    courses: dict[int, tuple[Work, int]] = field(default_factory=dict)
    ends: list[tuple[int, float, int]] = field(default_factory=list)

    @property
    def utilisation(self) -> float:
        """Worker-seconds in epochs of those there were while trials were left to ask for."""
        return self._share([(begin, end) for begin, end, _ in self.epochs])

    @property
    def tracing_share(self) -> float:
        """The same of tracing."""
        return self._share(self.tracing)

    def _share(self, spans: list[tuple[float, float]]) -> float:
        within = sum(min(end, self.last_ask) - begin for begin, end in spans if begin < self.last_ask)
        return within / (self.workers * self.last_ask) if self.last_ask else 0.0


class Simulation:
    """Events in the order of their time; the driver, and the link to it, serve one at a time."""

    def __init__(self, cluster: Cluster, trials: Trials, driver: Driver, seed: int = 0):
        self.cluster, self.trials, self.driver = cluster, trials, driver
        self.outcome = Outcome(cluster.workers)
        self._random = random.Random(derive_seed(seed, "losses"))
        self._events: list[tuple[float, int, int, Callable[..., None], tuple[Any, ...]]] = []
        self._order = count()
        self._epochs_done = 0
        self._driver_free = self._link_free = 0.0
        self._cold = set(range(cluster.workers))
        self._traced: dict[int, set[int]] = defaultdict(set)

    def run(self, epochs: float = math.inf) -> Outcome:
        """Until no worker has anything to do, or so many epochs are done."""
        for worker in range(self.cluster.workers):
            self._at(0.0, worker, self._ask)
        while self._events and self._epochs_done < epochs:
            now, _, worker, do, arguments = heapq.heappop(self._events)
            do(now, worker, *arguments)
        return self.outcome

    def _at(self, when: float, worker: int, do: Callable[..., None], *arguments: Any) -> None:
        heapq.heappush(self._events, (when, next(self._order), worker, do, arguments))

    def _ask(self, now: float, worker: int) -> None:
        begin = max(now, self._driver_free)
        work, seconds = self.driver.ask(f"{worker}-{next(self._order)}", begin)
        if work == Searcher.FINISHED:
            return
        if not isinstance(work, Work):
            self._at(begin + 1.0, worker, self._ask)
            return
        asked = self._busy(begin, seconds)
        self.outcome.last_ask = max(self.outcome.last_ask, asked)
        self.outcome.courses.setdefault(work.number, (work, 0))
        start = self.cluster.cold_start if worker in self._cold else 0.0
        self._cold.discard(worker)
        ready = asked + 2 * self.cluster.latency + start + self.cluster.warm_start
        self._at(ready, worker, self._tell, work, {"kind": "started", "worker": str(worker)})

    def _tell(self, now: float, worker: int, work: Work, message: dict[str, Any]) -> None:
        begin = max(now, self._driver_free)
        goes_on, seconds = self.driver.tell(work, message, begin)
        answered = self._busy(begin, seconds)
        if message["kind"] == "epoch":
            self.outcome.courses[work.number] = (self.outcome.courses[work.number][0], work.epoch)
            work.epoch += 1
            self._epochs_done += 1
        if goes_on:
            self._train(answered + self.cluster.latency, worker, work)
        else:
            self.outcome.end = max(self.outcome.end, answered)
            self.outcome.ends.append((self._epochs_done, answered, work.number))
            self._at(answered, worker, self._ask)

    def _train(self, now: float, worker: int, work: Work) -> None:
        begin = now
        depth = work.parameters.get("freeze_depth", 0)
        if depth not in self._traced[worker]:
            self._traced[worker].add(depth)
            begin += self.cluster.tracing
        end = begin + self.trials.seconds(work.parameters, work.epoch)
        rate = self.cluster.loss_per_hour / 3600
        loss = now + self._random.expovariate(rate) if rate else math.inf
        if loss < end:
            self._at(loss, worker, self._lose, work)
            return
        self.outcome.tracing.append((now, begin))
        self.outcome.epochs.append((begin, end, work.number))
        metrics = self.trials.metrics(work.parameters, work.seed, work.epoch)
        message = {"kind": "epoch", "epoch": work.epoch, "metrics": metrics, "seconds": {}, "last": False}
        self._at(end, worker, self._hand_over, work, message)

    def _hand_over(self, now: float, worker: int, work: Work, message: dict[str, Any]) -> None:
        size = self.trials.checkpoint_bytes(work.parameters)
        self.outcome.bytes += size
        if self.cluster.link:
            now = self._link_free = max(now, self._link_free) + size / self.cluster.link
        self._at(now + self.cluster.latency, worker, self._tell, work, message)

    def _lose(self, now: float, worker: int, work: Work) -> None:
        self.driver.lose(work, max(now, self._driver_free))
        self._cold.add(worker)
        self._traced[worker].clear()
        self._at(now + self.cluster.restart, worker, self._ask)

    def _busy(self, begin: float, seconds: float) -> float:
        seconds += self.cluster.ray
        self.outcome.driver += seconds
        self._driver_free = begin + seconds
        return self._driver_free

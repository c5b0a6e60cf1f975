"""A cluster in virtual time: workers that train by a table, and one driver that answers them one after the other."""

import heapq
import math
import random
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Protocol

from benchmarks.simulation.driver import FINISHED, Driver, Work
from search.sampling import derive_seed


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
        ends: Epochs done by all, time, trial and its last epoch, whenever a worker left a trial: at its end or a pause.
    """

    workers: int
    last_ask: float = 0.0
    end: float = 0.0
    epochs: list[tuple[float, float, int]] = field(default_factory=list)
    tracing: list[tuple[float, float]] = field(default_factory=list)
    driver: float = 0.0
    bytes: float = 0.0
    courses: dict[int, tuple[Work, int]] = field(default_factory=dict)
    ends: list[tuple[int, float, int, int]] = field(default_factory=list)

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
        if work == FINISHED:
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
            self.outcome.ends.append((self._epochs_done, answered, work.number, work.epoch - 1))
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

"""Ray Tune's Searcher and TrialScheduler, thin: both only carry questions to a TrialSource and its answers back.

What a worker's `step` returns is one of three messages under `MESSAGE`: it started, an epoch ended, or the trial
failed. Whatever else goes wrong with a trial is its worker's or node's death; then the trial goes back to the source,
which has it done again from its own checkpoint. Workers that hang, or whose node is being drained, are ended here.
"""

import logging
import math
from collections.abc import Collection, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.tune import TuneError
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from search.events import TrialKey
from search.history import History
from search.inside_ray import every_death_told, no_last_steps
from search.leftovers import temporary_folder
from search.nodes import draining_nodes, node_of
from search.retries import Death, read_death
from search.study import Then
from search.trial_source import Report, Request, TrialSource
from search.watchdog import AwakeClock, Watchdog

MESSAGE = "thawline"  # holds a list of one message, because Tune flattens dictionaries
LOOK_SECONDS = 2.0  # between looks at the cluster itself


def run_trials(
    source: TrialSource | Then,
    trial_class: type,
    context: Mapping[str, Any],
    resources: Mapping[str, float],
    concurrency: int,
) -> None:
    """Run what `source` asks for on the connected Ray cluster until it asks no more.

    Args:
        source: Says what to run and what follows from each result.
        trial_class: A class trainable; gets `{"study": context, "trial": request}` as its configuration.
        context: Plain values that are the same for all trials.
        resources: Ray resources of one trial (`CPU`, `GPU`).
        concurrency: Trials at once.
    """
    watchdog = Watchdog(source.config.budget.silence_seconds, _slowest_epoch(source.ledger.history))
    courier = _Courier(source, context, concurrency, watchdog)
    scheduler = _Scheduler(courier)
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # what it would say stands in the ledger
    with (
        temporary_folder("thawline-ray-") as snapshots,  # Ray's view of the run: nobody reads it
        every_death_told(),
        no_last_steps(),
    ):
        tuner = tune.Tuner(
            tune.with_resources(trial_class, dict(resources)),
            tune_config=tune.TuneConfig(
                num_samples=-1,
                search_alg=_Searcher(courier),
                scheduler=scheduler,
                max_concurrent_trials=concurrency,
                reuse_actors=True,
                trial_dirname_creator=lambda trial: str(trial.trial_id),
            ),
            run_config=tune.RunConfig(
                storage_path=str(snapshots),
                name="study",
                verbose=0,
                callbacks=[_Round(courier, scheduler)],
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),  # trials keep their own
            ),
        )
        try:
            tuner.fit()
        except TuneError as error:  # made of whatever the source raised, a full disk for example
            raise error.__context__ or error from None


def _slowest_epoch(history: History) -> float:
    """Seconds of training in the slowest epoch of earlier sessions; 0 without any."""
    seconds = [epoch.seconds.get("train", 0.0) for trial in history.trials.values() for epoch in trial.epochs]
    return max((each for each in seconds if math.isfinite(each)), default=0.0)


class _Courier:
    """Knows which of Ray's trials runs which request."""

    def __init__(
        self,
        source: TrialSource | Then,
        context: Mapping[str, Any],
        concurrency: int,
        watchdog: Watchdog | None = None,
        clock: AwakeClock | None = None,
    ):
        self.source = source
        self.context = dict(context)
        self.concurrency = concurrency
        self.watchdog = watchdog or Watchdog()
        self.clock = clock or AwakeClock()
        self.keys: dict[str, TrialKey] = {}
        self.errors: dict[str, str] = {}
        self.began: set[str] = set()
        self.ending: dict[str, Death] = {}  # workers that were ended from here, and why
        self.spoke: set[str] = set()  # since the last round
        self.workers: dict[str, str] = {}  # of each trial that began
        self.left: dict[str, TrialKey] = {}  # by each worker, while it waits and the worker has nothing else to do

    def next(self, ray_trial: str) -> dict[str, Any] | str | None:
        # A request made before a free worker is there would be made without the results that come meanwhile.
        if len(self.keys) + self.source.resting >= self.concurrency:
            return None
        request = self.source.ask()
        if request is None:
            # A running trial may yet lose its worker and be asked for again.
            return None if self.keys or self.source.resting else Searcher.FINISHED
        self.keys[ray_trial] = request.key
        # Whoever gets this may have left one of those that wait, and can now save it knowing that it is worth it.
        # Not all that wait: Ray keeps every trial's configuration, several times over.
        waiting = set(self.source.waiting)
        left = [(worker, key) for worker, key in self.left.items() if key in waiting]
        self.left = dict(left[-2 * self.concurrency :])  # some workers may be no more
        return {"study": self.context, "trial": _plain(request), "waiting": [list(key) for key in self.left.values()]}

    def deliver(self, ray_trial: str, message: Mapping[str, Any]) -> str:
        key = self.keys[ray_trial]
        self.spoke.add(ray_trial)
        self.watchdog.heard(ray_trial, self.clock.read(), epoch=message["kind"] == "epoch")
        match message["kind"]:
            case "started":
                self.began.add(ray_trial)
                self.workers[ray_trial] = message["worker"]
                self.left.pop(message["worker"], None)
                self.source.started(key, message["worker"])
                return TrialScheduler.CONTINUE
            case "epoch":
                usage = message.get("usage", {})
                report = Report(message["epoch"], message["metrics"], message["seconds"], message["last"], usage)
                verdict = self.source.report(key, report)
                if verdict == "pause":
                    self.left[self.workers[ray_trial]] = key
                return TrialScheduler.CONTINUE if verdict == "continue" else TrialScheduler.STOP
            case _:
                self.source.fail(key, message["reason"], message.get("infeasible", False))
                return TrialScheduler.STOP

    def over(self, ray_trial: str, error: bool) -> None:
        key = self.keys.pop(ray_trial, None)
        self.workers.pop(ray_trial, None)
        if key is not None and error:
            death = read_death(self.errors.pop(ray_trial, ""), ray_trial in self.began)
            self.source.lost(key, self.ending.pop(ray_trial, death))

    def hanging(self, workers: Collection[str]) -> dict[str, Death]:
        """Which of the trials that have workers must lose them, because they say nothing any more."""
        now = self.clock.read()
        self.watchdog.watch(workers, now)
        return {
            name: Death("hung", f"nothing was heard of its worker for {seconds:.0f} seconds")
            for name, seconds in self.watchdog.hanging(now).items()
        }

    def __reduce__(self) -> tuple[Any, ...]:
        return object, ()  # Tune pickles searcher and scheduler for its snapshots; the ledger is what counts


class _Searcher(Searcher):
    def __init__(self, courier: _Courier):
        super().__init__()
        self._courier = courier

    def suggest(self, trial_id: str) -> Any:
        return self._courier.next(trial_id)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        self._courier.over(trial_id, error)

    def set_max_concurrency(self, max_concurrent: int) -> bool:
        return True  # otherwise Tune wraps this in a limiter that drops completions it does not know

    def set_search_properties(self, metric: str | None, mode: str | None, config: dict[str, Any], **spec: Any) -> bool:
        return True

    def save(self, checkpoint_path: str) -> None:
        """Nothing to save: the ledger has it."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing to restore: the ledger has it."""


class _Scheduler(FIFOScheduler):
    """Carries results; knows Ray's trial behind each name."""

    def __init__(self, courier: _Courier):
        super().__init__()
        self._courier = courier
        self.trials: dict[str, Any] = {}

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        self.trials = {name: each for name, each in self.trials.items() if name in self._courier.keys}
        self.trials[trial.trial_id] = trial

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        return self._courier.deliver(trial.trial_id, result[MESSAGE][0])

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
        # Not `trial.get_error()`: it reads a copy that is made later.
        error = Path(trial.error_file).read_text(encoding="utf-8").strip() if trial.error_file else ""
        self._courier.errors[trial.trial_id] = error

    def __reduce__(self) -> tuple[Any, ...]:
        return object, ()


class _Round(tune.Callback):
    """Looks after the workers, several times a second: who hangs, and whose node is drained."""

    def __init__(self, courier: _Courier, scheduler: _Scheduler):
        self._courier = courier
        self._scheduler = scheduler
        self._draining: Collection[str] = ()
        self._looked = 0.0

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        workers = self._workers()
        for name, death in self._courier.hanging(workers).items():
            self._end(name, workers[name], death)
        now = self._courier.clock.read()
        if now - self._looked >= LOOK_SECONDS:
            self._looked, self._draining = now, draining_nodes()
        # Right after a word the trial's checkpoint is whole, and nothing is done twice.
        for name in self._courier.spoke & workers.keys() if self._draining else ():
            if node_of(workers[name]) in self._draining:
                self._end(name, workers[name], Death("node", "its node is being drained"))
        self._courier.spoke.clear()

    def _workers(self) -> dict[str, Any]:
        """The actor of each running trial that has one."""
        found = {name: self._scheduler.trials.get(name) for name in self._courier.keys}
        actors = {name: trial.temporary_state.ray_actor for name, trial in found.items() if trial}
        return {name: actor for name, actor in actors.items() if actor}

    def _end(self, name: str, worker: Any, death: Death) -> None:
        if name not in self._courier.ending:
            self._courier.ending[name] = death
            ray.kill(worker)

    def __reduce__(self) -> tuple[Any, ...]:
        return object, ()


def _plain(request: Request) -> dict[str, Any]:
    return asdict(request) | {"key": list(request.key)}

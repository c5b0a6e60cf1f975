"""Ray Tune's Searcher and TrialScheduler, thin: both only carry questions to a TrialSource and its answers back.

What a worker's `step` returns is one of three messages under `MESSAGE`: it started, an epoch ended, or the trial
failed. Whatever else goes wrong with a trial is its worker's or node's death; then the trial goes back to the source,
which has it done again from its own checkpoint.
"""

import logging
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune import TuneError
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from search.events import TrialKey
from search.study import Report, Request, Then, TrialSource

MESSAGE = "thawline"  # holds a list of one message, because Tune flattens dictionaries


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
    courier = _Courier(source, context, concurrency)
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # what it would say stands in the ledger
    with tempfile.TemporaryDirectory(prefix="thawline-ray-") as snapshots:  # Ray's view of the run: nobody reads it
        tuner = tune.Tuner(
            tune.with_resources(trial_class, dict(resources)),
            tune_config=tune.TuneConfig(
                num_samples=-1,
                search_alg=_Searcher(courier),
                scheduler=_Scheduler(courier),
                max_concurrent_trials=concurrency,
                reuse_actors=True,
                trial_dirname_creator=lambda trial: str(trial.trial_id),
            ),
            run_config=tune.RunConfig(
                storage_path=snapshots,
                name="study",
                verbose=0,
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),  # trials keep their own
            ),
        )
        try:
            tuner.fit()
        except TuneError as error:  # made of whatever the source raised, a full disk for example
            raise error.__context__ or error from None


class _Courier:
    """Knows which of Ray's trials runs which request."""

    def __init__(self, source: TrialSource | Then, context: Mapping[str, Any], concurrency: int):
        self.source = source
        self.context = dict(context)
        self.concurrency = concurrency
        self.keys: dict[str, TrialKey] = {}
        self.errors: dict[str, str] = {}
        self.began: set[str] = set()

    def next(self, ray_trial: str) -> dict[str, Any] | str | None:
        # A request made before a free worker is there would be made without the results that come meanwhile.
        if len(self.keys) >= self.concurrency:
            return None
        request = self.source.ask()
        if request is None:
            # A running trial may yet lose its worker and be asked for again.
            return None if self.keys else Searcher.FINISHED
        self.keys[ray_trial] = request.key
        return {"study": self.context, "trial": _plain(request)}

    def deliver(self, ray_trial: str, message: Mapping[str, Any]) -> str:
        key = self.keys[ray_trial]
        match message["kind"]:
            case "started":
                self.began.add(ray_trial)
                self.source.started(key, message["worker"])
                return TrialScheduler.CONTINUE
            case "epoch":
                usage = message.get("usage", {})
                report = Report(message["epoch"], message["metrics"], message["seconds"], message["last"], usage)
                verdict = self.source.report(key, report)
                return TrialScheduler.CONTINUE if verdict == "continue" else TrialScheduler.STOP
            case _:
                self.source.fail(key, message["reason"], message.get("infeasible", False))
                return TrialScheduler.STOP

    def over(self, ray_trial: str, error: bool) -> None:
        key = self.keys.pop(ray_trial, None)
        if key is not None and error:
            reason = self.errors.pop(ray_trial, "its worker died")
            self.source.lost(key, reason, began=ray_trial in self.began)

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
    def __init__(self, courier: _Courier):
        super().__init__()
        self._courier = courier

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        return self._courier.deliver(trial.trial_id, result[MESSAGE][0])

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
        # Not `trial.get_error()`: it reads a copy that is made later.
        error = Path(trial.error_file).read_text(encoding="utf-8").strip() if trial.error_file else ""
        self._courier.errors[trial.trial_id] = error.splitlines()[-1] if error else "its worker died"


def _plain(request: Request) -> dict[str, Any]:
    return asdict(request) | {"key": list(request.key)}

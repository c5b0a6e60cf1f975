"""A study as MLflow runs: one for the study, below it one per trial with parameters, metrics by epoch, status."""

import logging
import math
import os
from typing import Any

from search.config import StudyConfig
from search.events import Asked, EpochReported, Noted, Started, Status, TrialKey
from search.follow import Happening
from search.history import History, TrialRecord

STUDY, TRIAL = "thawline.study", "thawline.trial"  # tags that runs are found again by
STATUSES: dict[Status, str] = {"completed": "FINISHED", "pruned": "KILLED", "failed": "FAILED"}


class MlflowCopy:
    """Writes to a tracking server or database. What it finds there of this study it continues."""

    def __init__(self, config: StudyConfig, address: str):
        self._config = config
        self._address = address
        self._parent = ""
        self._study = ""
        self._runs: dict[str, str] = {}  # names of trials, and their runs
        self._whole: set[str] = set()
        self._logged: dict[str, dict[str, set[int]]] = {}  # by run and metric: steps of earlier sessions
        self._unended = 0

    def __str__(self) -> str:
        return f"the copy in MLflow at {self._address}"

    def open(self) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        from mlflow.tracking import MlflowClient

        for name in ("mlflow", "alembic"):  # they greet; after the import, which sets levels of its own
            logging.getLogger(name).setLevel(logging.WARNING)
        self._client = MlflowClient(tracking_uri=self._address)
        name = self._config.name or "study"
        found = self._client.get_experiment_by_name(name)
        self._experiment = found.experiment_id if found else self._client.create_experiment(name)

    def take(self, happening: Happening, history: History) -> None:
        event, at = happening.event, int(happening.at * 1000)
        if not self._study:
            self._find(f"{self._config.name} {happening.at:.6f}", at)
        match event:
            case Noted(topic="winner"):
                self._client.set_tag(self._parent, "thawline.winner", str(event.facts.get("number")))
            case Noted():
                pass
            case _ if (number := getattr(event, "number", None)) is not None:
                self._take(event, at, history.trials[TrialKey(number, getattr(event, "repeat", 0))])
        self._unended = sum(not trial.ended for trial in history.trials.values())

    def flush(self) -> None:
        """Nothing waits."""

    def close(self) -> None:
        if self._parent:
            self._client.set_terminated(self._parent, "KILLED" if self._unended else "FINISHED")

    def _find(self, study: str, at: int) -> None:
        """The runs that are there already; a new one for the study if it is not."""
        self._study, token = study, None
        while True:
            page = self._client.search_runs([self._experiment], f"tags.`{STUDY}` = '{study}'", page_token=token)
            for run in page:
                self._remember(run)
            token = page.token
            if not token:
                break
        if self._parent:
            self._client.update_run(self._parent, status="RUNNING")
        else:
            self._parent = self._create(self._config.name or "study", at, {})

    def _remember(self, run: Any) -> None:
        trial = run.data.tags.get(TRIAL)
        if trial is None:
            self._parent = run.info.run_id
            return
        self._runs[trial] = run.info.run_id
        if run.info.status in STATUSES.values():
            self._whole.add(trial)
        else:
            self._logged[trial] = {
                name: {metric.step for metric in self._client.get_metric_history(run.info.run_id, name)}
                for name in run.data.metrics
            }

    def _take(self, event: Any, at: int, trial: TrialRecord) -> None:
        name = str(trial.key)
        if name in self._whole:
            return
        match event:
            case Asked():
                self._begin(name, trial, at)
            case Started():
                self._client.set_tag(self._runs[name], "thawline.worker", event.worker)
            case EpochReported():
                self._log(name, event.epoch, {**event.metrics, **_prefixed("seconds", event.seconds)}, at)
        if trial.ended:
            self._end(name, trial, at)

    def _begin(self, name: str, trial: TrialRecord, at: int) -> None:
        from mlflow.entities import Param

        if name not in self._runs:
            parent = {"mlflow.parentRunId": self._parent, TRIAL: name}
            self._runs[name] = self._create(f"trial {name}", at, parent)
        values = {**trial.parameters, "seed": trial.seed}
        self._client.log_batch(self._runs[name], params=[Param(key, str(value)) for key, value in values.items()])

    def _create(self, name: str, at: int, tags: dict[str, str]) -> str:
        run = self._client.create_run(self._experiment, start_time=at, run_name=name, tags={STUDY: self._study, **tags})
        return str(run.info.run_id)

    def _log(self, name: str, step: int, values: dict[str, float], at: int) -> None:
        """Values at a step, but not those that an earlier session wrote."""
        from mlflow.entities import Metric

        there = self._logged.get(name, {})
        metrics = [
            Metric(key, value, at, step)
            for key, value in values.items()
            if math.isfinite(value) and step not in there.get(key, ())
        ]
        if metrics:
            self._client.log_batch(self._runs[name], metrics=metrics)

    def _end(self, name: str, trial: TrialRecord, at: int) -> None:
        objective = self._config.objective
        best = trial.best(objective)
        if best:
            self._log(name, best[0], {"value": best[1], "best_epoch": float(best[0])}, at)
        run = self._runs[name]
        self._client.set_tag(run, "thawline.status", trial.status)
        if trial.reason:
            self._client.set_tag(run, "thawline.reason", trial.reason)
        self._client.set_terminated(run, STATUSES[trial.status], at)
        self._whole.add(name)


def _prefixed(prefix: str, values: dict[str, float]) -> dict[str, float]:
    return {f"{prefix}/{name}": value for name, value in values.items()}

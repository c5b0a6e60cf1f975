"""A study as TensorBoard event files: a run per trial with its hyperparameters and every metric by epoch."""

import math
import shutil
from pathlib import Path
from typing import Any

from search.config import StudyConfig
from search.events import EpochReported, TrialKey
from search.follow import Happening
from search.history import History, TrialRecord

WHOLE = "whole"  # a file of this name stands beside the events of a trial that has ended, when all of them are there


class TensorBoardCopy:
    """Writes `trial_7`, `trial_7.1` and so on. Trials that are not whole are written anew in the next session."""

    def __init__(self, config: StudyConfig, folder: Path):
        self._config = config
        self._folder = folder
        self._whole: set[str] = set()
        self._writers: dict[TrialKey, Any] = {}

    def __str__(self) -> str:
        return "TensorBoard's copy"

    def open(self) -> None:
        self._folder.mkdir(exist_ok=True)
        self._whole = {path.parent.name for path in self._folder.glob(f"trial_*/{WHOLE}")}
        for path in self._folder.glob("trial_*"):
            if path.name not in self._whole:
                shutil.rmtree(path)

    def take(self, happening: Happening, history: History) -> None:
        event = happening.event
        number = getattr(event, "number", None)
        if number is None:
            return
        trial = history.trials[TrialKey(number, getattr(event, "repeat", 0))]
        if _name(trial) in self._whole:
            return
        if trial.key not in self._writers:
            self._begin(trial)
        if isinstance(event, EpochReported):
            self._write(trial.key, event, happening.at)
        if trial.ended:
            self._end(trial)

    def flush(self) -> None:
        for writer in self._writers.values():
            writer.flush()

    def close(self) -> None:
        for writer in self._writers.values():
            writer.close()
        self._writers.clear()

    def _begin(self, trial: TrialRecord) -> None:
        from tensorboardX import SummaryWriter  # type: ignore[import-untyped]  # it ships none

        writer = self._writers[trial.key] = SummaryWriter(str(self._folder / _name(trial)))
        experiment, start, _ = self._summaries(trial)
        writer.file_writer.add_summary(experiment)
        writer.file_writer.add_summary(start)

    def _write(self, key: TrialKey, event: EpochReported, at: float) -> None:
        """Metrics under their names; what they took under `seconds/` and `usage/`."""
        named = {
            **event.metrics,
            **{f"seconds/{name}": value for name, value in event.seconds.items()},
            **{f"usage/{name}": value for name, value in event.usage.items()},
        }
        for name, value in named.items():
            if math.isfinite(value):
                self._writers[key].add_scalar(name, value, event.epoch, walltime=at)

    def _end(self, trial: TrialRecord) -> None:
        writer = self._writers.pop(trial.key)
        writer.file_writer.add_summary(self._summaries(trial)[2])
        writer.close()
        (self._folder / _name(trial) / WHOLE).touch()

    def _summaries(self, trial: TrialRecord) -> tuple[Any, Any, Any]:
        """What TensorBoard's page of hyperparameters reads: what there is, a trial's values, and that it has ended."""
        from tensorboardX.summary import hparams  # type: ignore[import-untyped]  # it ships none

        return hparams(dict(trial.parameters), {self._config.objective.metric: None})


def _name(trial: TrialRecord) -> str:
    return f"trial_{trial.key}"

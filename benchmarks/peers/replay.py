"""The same list of configurations and epochs through Thawline's driver, without sampler or pruner."""

import json
import tempfile
from pathlib import Path
from typing import Any

from task import EPOCHS, Task

from search.config import StudyConfig
from search.driver import Session
from search.history import TrialRecord
from search.study import Study
from search.trial_source import Decision, Report
from trainable import ImageTrainable


class Listed(Study):
    """A study whose trials end after the epochs that the list gives them."""

    def __init__(self, config: StudyConfig, ledger: Any, epochs: list[int]):
        super().__init__(config, ledger)
        self._listed = epochs

    def _decide(self, trial: TrialRecord, report: Report, value: float) -> Decision:
        return Decision("complete" if report.epoch >= self._listed[trial.number] else "continue")


def replay(task: Task, runs: list[dict[str, Any]]) -> None:
    """Train the list; note every epoch."""
    from systems import note_ledger

    described = json.loads((task.folder / "task.json").read_text())
    with tempfile.TemporaryDirectory() as folder:
        document = {
            **described["study"],
            "name": "it",
            "storage": folder,
            "budget": {"trials": len(runs), "epochs": EPOCHS},
            "pruner": {"name": "none"},
            "first_points": [run["parameters"] for run in runs],
        }
        with Session(StudyConfig.parse(document), ImageTrainable()) as session:
            session._run(Listed(session.config, session.ledger, [run["epochs"] for run in runs]))
        note_ledger(Path(folder) / "it")

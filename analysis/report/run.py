"""One run, read once: what a report is made from."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from analysis.evaluation import Evaluation, read_evaluation
from analysis.export import named_winner
from analysis.parts import Parts, read_parts
from analysis.selection import Finalist, rank_finalists
from analysis.thumbnails import thumbnails
from search.config import StudyConfig
from search.errors import ConfigurationError
from search.history import History, TrialRecord
from search.ledger import read_history
from search.paths import StudyPaths, find_run

Limits = Mapping[str, tuple[float, float]]


@dataclass(frozen=True)
class Run:
    """A study on disk.

    Attributes:
        trials: Of the search, by number; reruns left out.
        winner: As the ledger names it, else as it would be named now; None without a usable trial.
        evaluation: None when the test part was not opened, or its files are not whole.
        trained_since: Whether the model in `final/` is another one than was evaluated.
        parts: None when `split.csv` is gone or not one.
        images: PNG files of training images by class; empty when they are gone.
        limits: Lowest and highest possible value of hyperparameters, by name.
    """

    paths: StudyPaths
    config: StudyConfig
    history: History
    trials: list[TrialRecord]
    winner: dict[str, Any] | None
    finalists: list[Finalist]
    evaluation: Evaluation | None
    trained_since: bool
    parts: Parts | None
    images: dict[str, list[bytes]]
    limits: Limits

    @property
    def name(self) -> str:
        return self.paths.root.name

    @property
    def metric(self) -> str:
        return self.config.objective.metric

    @property
    def valued(self) -> list[TrialRecord]:
        """Trials with a value of the objective that counts: a failed trial's does not."""
        return [trial for trial in self.trials if trial.status != "failed" and trial.values(self.metric)]

    @property
    def record(self) -> dict[str, Any]:
        return self.config.record or {}

    def ended(self, status: str) -> int:
        return sum(trial.status == status for trial in self.trials)

    def best_value(self, trial: TrialRecord) -> float:
        """NaN without any."""
        best = trial.best(self.config.objective)
        return best[1] if best else float("nan")


def read_run(run: str | Path, limits: Limits) -> Run:
    """Everything that is there now, whether the search has ended or not.

    Raises:
        ConfigurationError: when there is no such run.
        LedgerError: when its ledger is missing or damaged.
    """
    paths = find_run(run)
    config, history = StudyConfig.load(paths.study_file), read_history(paths.ledger)
    return Run(
        paths=paths,
        config=config,
        history=history,
        trials=history.search_trials(),
        winner=winner_so_far(history, config),
        finalists=rank_finalists(history, config.objective),
        evaluation=_evaluation(paths.final),
        trained_since=_trained_since(paths.final, history),
        parts=_parts(paths.split),
        images=thumbnails(paths.arrays),
        limits=limits,
    )


def winner_so_far(history: History, config: StudyConfig) -> dict[str, Any] | None:
    """None without a trial that has a usable value."""
    try:
        return named_winner(history, config)
    except ConfigurationError:
        return None


def read_scores(final: Path) -> dict[str, Any]:
    """`metrics.json`; empty when it is not there or not whole."""
    return _document(final / "metrics.json")


def _document(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return document if isinstance(document, dict) else {}


def _trained_since(final: Path, history: History) -> bool:
    times = read_scores(final).get("test_opened", {}).get("times")
    tested = {
        note.facts["times"]: note.facts.get("model_sha256") for note in history.notes if note.topic == "test_opened"
    }
    trained = _document(final / "model.json").get("sha256")
    return None not in (tested.get(times), trained) and tested[times] != trained


def _evaluation(final: Path) -> Evaluation | None:
    try:
        return read_evaluation(final)
    except (OSError, ValueError):
        return None


def _parts(split: Path) -> Parts | None:
    try:
        return read_parts(split)
    except (OSError, ValueError):
        return None

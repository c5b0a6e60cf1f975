"""One trial's configuration as a study file that `search` and `retrain` take unchanged."""

import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from analysis.selection import choose_winner, learning_rates
from search.config import Objective, StudyConfig
from search.errors import ConfigurationError
from search.events import TrialKey
from search.history import History, TrialRecord
from search.ledger import read_history
from search.paths import find_run
from search.safe_yaml import to_yaml
from search.whole_file import write_whole

_TO_TRAIN = ("best_epoch", "learning_rates")  # a winner's come from its reruns
_WHY = ("mean", "standard_error", "seeds", "reason")


def export_trial(run: str | Path, number: int | None = None, path: Path | None = None) -> Path:
    """Write a trial's configuration as YAML, whole or not at all; missing folders are made.

    Args:
        run: A run folder, or the name of one under `runs/`.
        number: The trial; default: the winner that the ledger names, else the one `choose_winner` would name now.
        path: Where; default: `best.yaml` in the run folder, or `trial_<number>.yaml` for a numbered trial.

    Returns:
        Where it was written.

    Raises:
        ConfigurationError: when there is no such run or trial, or it has no value.
        LedgerError: when the ledger is missing or damaged.
    """
    paths = find_run(run)
    config, history = StudyConfig.load(paths.study_file), read_history(paths.ledger)
    winner = named_winner(history, config) if number is None else None
    trial = _trial(history, config.objective, winner["number"] if winner else number)
    document = best_document(config, {**(config.record or {}), "source_run": paths.root.name}, trial, winner)
    path = path or (paths.best if winner else paths.root / f"trial_{trial.number}.yaml")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, _to_yaml(document))
    return path


def named_winner(history: History, config: StudyConfig) -> dict[str, Any]:
    """Facts of the winner, `number` and `best_epoch` among them: as noted in the ledger; as `choose_winner` says when
    nothing is, or the search went on since.

    Raises:
        ConfigurationError: when no trial has a usable value.
    """
    noted = history.note("winner")
    return noted if noted and not history.is_overtaken("winner") else asdict(choose_winner(history, config))


def best_document(
    config: StudyConfig, record: Mapping[str, Any], trial: TrialRecord, winner: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The study with one trial's values in it, as plain values that `StudyConfig.parse` takes.

    `training` carries the trial's hyperparameters, `space` stays, `first_points` is the trial alone, so that the file
    both retrains the trial and starts a new search from it.

    Args:
        config: The study.
        record: What was written beside the study, and `source_run`.
        trial: With a value.
        winner: Facts of `named_winner` when the trial is exported as the best one; epochs and learning rates to train
            with are its, because they come from the reruns. The metrics stay those of the trial's own best epoch.
    """
    study, facts = config.dump(), winner or {}
    to_train = {name: facts[name] for name in _TO_TRAIN if name in facts}
    why = {name: facts[name] for name in _WHY if _known(facts.get(name))}
    return {
        **study,
        "training": {**study["training"], **trial.parameters},
        "first_points": [dict(trial.parameters)],
        "record": {
            **record,
            "exported": "best" if winner else "trial",
            "trial": {**_facts(trial, config.objective), **to_train},
            **({"winner": why} if why else {}),
        },
    }


def _facts(trial: TrialRecord, objective: Objective) -> dict[str, Any]:
    epoch, value = trial.best(objective) or (0, None)
    return {
        "number": trial.number,
        "value": value,
        "best_epoch": epoch,
        "learning_rates": learning_rates(trial, epoch),
        "epochs_run": len(trial.epochs),
        "seed": trial.seed,
        "parameters": dict(trial.parameters),
        "status": trial.status,
        "metrics": {name: metric for name, metric in trial.metrics_at(epoch).items() if _known(metric)},
    }


def _trial(history: History, objective: Objective, number: Any) -> TrialRecord:
    trial = history.trials.get(TrialKey(number))
    if trial is None:
        raise ConfigurationError(
            f"trial: must be one of the {len(history.search_trials())} trials of the study, numbered from 0, "
            f"but got {number}"
        )
    if not trial.values(objective.metric):
        raise ConfigurationError(
            f"trial {number}: must have a value of {objective.metric} to be exported, but it is {trial.status}"
            + (f": {trial.reason}" if trial.reason else "")
        )
    return trial


def _known(value: Any) -> bool:
    return value is not None and not (isinstance(value, float) and math.isnan(value))


def _to_yaml(document: Mapping[str, Any]) -> str:
    return "".join(f"# {line}\n" for line in _heading(document)) + to_yaml(document)


def _heading(document: Mapping[str, Any]) -> list[str]:
    record = document["record"]
    trial = record["trial"]
    lines = [
        f"Trial {trial['number']} of the study {record['source_run']}"
        + (", its winner" if record["exported"] == "best" else ""),
        f"{document['objective']['metric']} {trial['value']!r} in the search; train {trial['best_epoch']} epochs",
        record.get("winner", {}).get("reason", ""),
    ]
    return [" ".join(line.split()) for line in lines if line]

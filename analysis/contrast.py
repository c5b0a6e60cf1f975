"""Several runs side by side: what each found, what it took, and in what they differ."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from analysis.export import named_winner
from search.config import StudyConfig
from search.errors import ConfigurationError
from search.history import History, TrialRecord


@dataclass(frozen=True)
class Outcome:
    """One run in a column.

    Attributes:
        number: The winner's; None without any usable trial. Likewise the values.
        value: Its best epoch's in the search.
        mean: Over its reruns; None without.
        standard_error: Of that mean; None with fewer than two.
        seeds: Reruns that the mean is over.
        statuses: Trials by status.
        epochs: Run by trials of the search, reruns left out.
        worker_seconds: That trials of the search held workers, ended or not.
        test: Metrics of the test part as `metrics.json` has them, `{"value", "interval"}`; empty when not evaluated.
        earlier: Whether `test` is of another model than this winner's.
        fingerprint: Of the images and their split; None when not recorded.
        positive_class: That sensitivity, specificity and F1 speak of; None with more than two, or when not recorded.
    """

    name: str
    metric: str
    direction: str
    number: int | None
    parameters: dict[str, Any]
    value: float | None
    mean: float | None
    standard_error: float | None
    seeds: int
    statuses: dict[str, int]
    epochs: int
    worker_seconds: float
    test: dict[str, Any]
    earlier: bool
    fingerprint: str | None
    positive_class: str | None


@dataclass(frozen=True)
class Contrast:
    """Runs in the order given.

    Attributes:
        differing: Settings by dotted name in which the runs differ, each with one value per run; None where absent.
        warnings: Why values must not be compared as they stand, a sentence each.
    """

    outcomes: list[Outcome]
    differing: dict[str, list[Any]] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


def outcome(
    name: str, config: StudyConfig, history: History, test: Mapping[str, Any], earlier: bool = False
) -> Outcome:
    """One run's column.

    Args:
        name: As people know the run.
        config: The study, with its record.
        history: What happened in it.
        test: The document `metrics.json`; empty when there is none.
        earlier: Whether that is of another model than would be used now.
    """
    trials = history.search_trials()
    try:
        winner = named_winner(history, config)
    except ConfigurationError:  # no trial has a usable value yet
        winner = {}
    return Outcome(
        name=name,
        metric=config.objective.metric,
        direction=config.objective.direction,
        number=winner.get("number"),
        parameters=dict(winner.get("parameters", {})),
        value=winner.get("value"),
        mean=_known(winner.get("mean")),
        standard_error=_known(winner.get("standard_error")),
        seeds=winner.get("seeds", 0),
        statuses=dict(Counter(trial.status for trial in trials)),
        epochs=sum(len(trial.epochs) for trial in trials),
        worker_seconds=math.fsum(_held(trial, history.used_seconds) for trial in trials),
        test={key: value for key, value in test.items() if isinstance(value, dict) and "interval" in value},
        earlier=earlier,
        fingerprint=config.recorded("data").get("fingerprint"),
        positive_class=config.recorded("data").get("positive_class"),
    )


def contrast(outcomes: Sequence[Outcome], configs: Sequence[StudyConfig]) -> Contrast:
    """What two or more runs differ in, and why that may make their values no match for each other."""
    flat = [_settings(config) for config in configs]
    names = dict.fromkeys(name for settings in flat for name in settings)
    values = {name: [settings.get(name) for settings in flat] for name in names}
    differing = {name: each for name, each in values.items() if any(value != each[0] for value in each)}
    return Contrast(list(outcomes), differing, _warnings(outcomes))


def _warnings(outcomes: Sequence[Outcome]) -> list[str]:
    sentences = []
    if len(prints := {outcome.fingerprint for outcome in outcomes}) > 1 or None in prints:
        sentences.append(
            "The runs did not see the same images in the same parts: "
            + ", ".join(f"{each.name} has fingerprint {(each.fingerprint or 'unknown')[:12]}" for each in outcomes)
            + ". A higher score may only mean easier images."
        )
    if len({(outcome.metric, outcome.direction) for outcome in outcomes}) > 1:
        sentences.append(
            "The runs rank trials by different objectives: "
            + ", ".join(f"{each.name} by {each.metric} ({each.direction})" for each in outcomes)
            + ". Their values have different scales."
        )
    if len(classes := {outcome.positive_class for outcome in outcomes} - {None}) > 1:
        sentences.append(
            f"The runs call different classes positive ({', '.join(sorted(map(str, classes)))}): sensitivity, "
            "specificity and F1 do not speak of the same."
        )
    return sentences


def _settings(config: StudyConfig) -> dict[str, Any]:
    """Every setting under its dotted name, and what was recorded of weights and versions."""
    record = config.record or {}
    recorded = {str(key): record[key] for key in ("weights_sha256", "versions") if key in record}
    return {**_flat(config.settings()), **_flat(recorded)}


def _flat(document: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    leaves: dict[str, Any] = {}
    for key, value in document.items():
        name = f"{above}{key}"
        leaves.update(_flat(value, f"{name}.") if isinstance(value, dict) else {name: value})
    return leaves


def _held(trial: TrialRecord, now: float) -> float:
    return math.fsum(end - start for start, end in trial.stints(now))


def _known(value: Any) -> float | None:
    """A note of the ledger has None for NaN; a fresh choice has NaN."""
    return None if value is None or math.isnan(value) else float(value)

"""What can happen to a study, as values; and how each is written as JSON."""

import json
import math
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, Literal, NamedTuple

from search.space import Point

Status = Literal["waiting", "running", "completed", "pruned", "failed"]
Verdict = Literal["continue", "pause", "complete", "prune", "fail"]
Origin = Literal["sampler", "first_point", "rerun"]


class TrialKey(NamedTuple):
    """Which training run is meant: `repeat` 0 is the search's own, 1, 2 … its reruns on fresh seeds."""

    number: int
    repeat: int = 0

    def __str__(self) -> str:
        return f"{self.number}.{self.repeat}" if self.repeat else str(self.number)


@dataclass(frozen=True)
class Event:
    """Something that happened; `kind` is its name in the ledger."""

    kind: ClassVar[str]


@dataclass(frozen=True)
class SessionOpened(Event):
    """A driver began to work on the study."""

    kind = "session_opened"
    host: str
    process: int


@dataclass(frozen=True)
class Asked(Event):
    """A configuration was chosen; its training may start."""

    kind = "asked"
    number: int
    parameters: Point
    seed: int
    origin: Origin = "sampler"
    repeat: int = 0
    system_attributes: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Started(Event):
    """A worker took the trial; once per attempt, and once per promotion."""

    kind = "started"
    number: int
    repeat: int = 0
    worker: str = ""


@dataclass(frozen=True)
class EpochReported(Event):
    """An epoch's result, and what was decided on it. `seconds` names the times that the worker measured, `usage` what
    it had and took from others' work: bytes and counts.
    """

    kind = "epoch_reported"
    number: int
    epoch: int
    metrics: dict[str, float]
    verdict: Verdict
    repeat: int = 0
    reason: str | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    system_attributes: dict[str, Any] = field(default_factory=dict)
    usage: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Promoted(Event):
    """A trial that was paused may go on from its checkpoint."""

    kind = "promoted"
    number: int
    repeat: int = 0


@dataclass(frozen=True)
class Pruned(Event):
    """A trial that was paused will not go on."""

    kind = "pruned"
    number: int
    reason: str
    repeat: int = 0


@dataclass(frozen=True)
class Failed(Event):
    """A trial that ended without a usable result. `infeasible`: no machine here can ever run its configuration."""

    kind = "failed"
    number: int
    reason: str
    repeat: int = 0
    infeasible: bool = False
    system_attributes: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Noted(Event):
    """Something beside the trials' own events: the cluster, a lost trial, the winner named, the test set opened."""

    kind = "noted"
    topic: str
    facts: dict[str, Any]


KINDS: dict[str, type[Event]] = {
    kind.kind: kind for kind in (SessionOpened, Asked, Started, EpochReported, Promoted, Pruned, Failed, Noted)
}


def to_json(event: Event) -> str:
    """The event's values. Floats as the shortest text that reads back bit-equal; NaN, which JSON lacks, as null."""
    text = json.dumps(without_nan(asdict(event)), allow_nan=False, ensure_ascii=False)
    # A lone surrogate, as in a file name that is not UTF-8, cannot be stored; its JSON escape reads back as the same.
    return text.encode("utf-8", "backslashreplace").decode()


def without_nan(value: Any) -> Any:
    """The same plain values with None for numbers that JSON does not have."""
    if isinstance(value, dict):
        return {key: without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def from_json(kind: str, body: str) -> Event:
    """The event that `to_json` wrote.

    Raises:
        KeyError, TypeError: for a kind or values that no version of the ledger has.
    """
    values = json.loads(body)
    for numbers in ("metrics", "seconds", "usage"):
        if numbers in values:
            values[numbers] = {name: math.nan if value is None else value for name, value in values[numbers].items()}
    return KINDS[kind](**values)

"""What is told while a study runs: nothing, or a line per event; `search.view.screen` draws it instead."""

import math
import sys
from types import TracebackType
from typing import Self, TextIO

from search.config import StudyConfig
from search.events import Asked, EpochReported, Event, Failed, Noted, Promoted, Pruned, TrialKey
from search.history import History
from search.view.words import note_line, shown

WORDS = {"pause": "paused", "complete": "completed", "prune": "pruned", "fail": "failed"}


class View:
    """Sees everything and shows nothing.

    Attributes:
        at_work: Whether somebody trains what is seen.
    """

    at_work = False
    config: StudyConfig | None = None
    history: History

    def watch(self, config: StudyConfig, history: History, age: float = 0.0) -> None:
        """From now on events of this study come; its last one is `age` seconds old."""
        self.config, self.history = config, history

    def preparing(self, what: str, done: int, of: int) -> None:
        """`done` of `of` parts of a step before, between or after trials are done."""

    def happened(self, event: Event) -> None:
        """An event became durable."""

    def say(self, text: str) -> None:
        """A sentence about the study as a whole."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """The study ends or is interrupted."""


class Lines(View):
    """One line per event, for logs and pipes; on standard error, where another stream is not given."""

    def __init__(self, stream: TextIO | None = None):
        self._stream = stream

    def preparing(self, what: str, done: int, of: int) -> None:
        if done == of:
            self.say(f"{what}: done" if of == 1 else f"{what}: {done} done")

    def happened(self, event: Event) -> None:
        line = self._line(event)
        if line:
            self.say(line)

    def say(self, text: str) -> None:
        stream = self._stream or sys.stderr
        stream.write(f"{text}\n")
        stream.flush()

    def _line(self, event: Event) -> str | None:
        match event:
            case Asked():
                return f"trial {TrialKey(event.number, event.repeat)} asked: {shown(event.parameters)}"
            case EpochReported():
                metric = self.config.objective.metric if self.config else ""
                end = "" if event.verdict == "continue" else f", {WORDS[event.verdict]}"
                reason = f" ({event.reason})" if event.reason else ""
                value = event.metrics.get(metric, math.nan)
                key = TrialKey(event.number, event.repeat)
                return f"trial {key} epoch {event.epoch}: {metric} {value:.4f}{end}{reason}"
            case Promoted():
                return f"trial {TrialKey(event.number, event.repeat)} promoted"
            case Pruned() | Failed():
                return f"trial {TrialKey(event.number, event.repeat)} {event.kind}: {event.reason}"
            case Noted():
                return note_line(event.topic, event.facts)
        return None

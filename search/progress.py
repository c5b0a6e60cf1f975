"""What a person sees while a study runs: one live screen in a terminal, one line per event elsewhere, or nothing."""

import math
import sys
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from search.config import StudyConfig
from search.events import Asked, EpochReported, Event, Failed, Noted, TrialKey
from search.history import History, TrialRecord

BARS = "▁▂▃▄▅▆▇█"
WORDS = {"complete": "completed", "prune": "pruned", "fail": "failed"}


class View:
    """Sees everything and shows nothing."""

    config: StudyConfig | None = None
    history: History

    @property
    def metric(self) -> str:
        """The objective's metric."""
        return self.config.objective.metric if self.config else ""

    def watch(self, config: StudyConfig, history: History) -> None:
        """From now on events of this study come."""
        self.config, self.history = config, history

    def preparing(self, what: str, done: int, of: int) -> None:
        """`done` of `of` parts of a step before or between trials are done."""

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
    """One line per event, for logs and pipes."""

    def preparing(self, what: str, done: int, of: int) -> None:
        if done == of:
            self.say(f"{what}: done" if of == 1 else f"{what}: {done} done")

    def happened(self, event: Event) -> None:
        line = self._line(event)
        if line:
            self.say(line)

    def say(self, text: str) -> None:
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()

    def _line(self, event: Event) -> str | None:
        match event:
            case Asked():
                return f"trial {TrialKey(event.number, event.repeat)} asked: {shown(event.parameters)}"
            case EpochReported():
                metric = self.metric
                end = "" if event.verdict == "continue" else f", {WORDS[event.verdict]}"
                reason = f" ({event.reason})" if event.reason else ""
                value = event.metrics.get(metric, math.nan)
                key = TrialKey(event.number, event.repeat)
                return f"trial {key} epoch {event.epoch}: {metric} {value:.4f}{end}{reason}"
            case Failed():
                return f"trial {TrialKey(event.number, event.repeat)} failed: {event.reason}"
            case Noted():
                return f"noted {event.topic}"
        return None


class Screen(View):
    """One screen, redrawn twice a second."""

    def __init__(self, console: Console | None = None):
        self._console = console or Console(stderr=True)
        self._step: tuple[str, int, int] | None = None
        self._live = Live(get_renderable=self._render, console=self._console, refresh_per_second=2, transient=False)

    def preparing(self, what: str, done: int, of: int) -> None:
        self._step = None if done >= of else (what, done, of)

    def say(self, text: str) -> None:
        self._console.print(text)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._step = None
        self._live.stop()

    def _render(self) -> RenderableType:
        parts: list[RenderableType] = []
        if self.config is not None:
            parts += study_screen(self.config, self.history)
        if self._step:
            what, done, of = self._step
            parts.append(Text(f"{what} …" if of == 1 else f"{what}: {done} of {of}", style="dim"))
        return Group(*parts)


def study_screen(config: StudyConfig, history: History) -> list[RenderableType]:
    """How far the study is, the best so far, what runs now, and the last failure."""
    trials = list(history.search_trials())
    reruns = list(history.reruns())
    ended = sum(trial.ended for trial in trials)
    counts = {
        status: sum(t.status == status for t in trials) for status in ("completed", "pruned", "failed", "running")
    }
    epochs = sum(len(trial.epochs) for trial in (*trials, *reruns))
    header = Table.grid(padding=(0, 2))
    header.add_row(
        Text(config.name or "study", style="bold"),
        ProgressBar(total=config.budget.trials, completed=ended, width=30),
        f"{ended} of {config.budget.trials} trials",
        ", ".join(f"{count} {status}" for status, count in counts.items() if count),
        f"{epochs} epochs",
        f"{history.used_seconds / 60:.1f} min",
    )
    parts: list[RenderableType] = [header]
    best = best_so_far(trials, config)
    if best:
        trial, epoch, value = best
        where = f"trial {trial.key} epoch {epoch}"
        parts.append(Text(f"best {config.objective.metric} {value:.4f}, {where}: {shown(trial.parameters)}"))
    running = [trial for trial in (*trials, *reruns) if trial.status == "running"]
    if running:
        parts.append(_running(running, config))
    failed = [trial for trial in trials if trial.status == "failed"]
    if failed:
        parts.append(
            Text(f"last failure: trial {failed[-1].key}: {failed[-1].reason}", style="red", overflow="ellipsis")
        )
    return parts


def best_so_far(trials: list[TrialRecord], config: StudyConfig) -> tuple[TrialRecord, int, float] | None:
    """The trial with the best value, its best epoch and the value; the first of equals."""
    objective = config.objective
    found: tuple[TrialRecord, int, float] | None = None
    for trial in trials:
        best = trial.best(objective.metric, objective.direction)
        if best and trial.status != "failed" and (found is None or objective.better(best[1], found[2])):
            found = (trial, *best)
    return found


def shown(values: Mapping[str, Any]) -> str:
    """`name value` pairs, numbers to four digits."""
    return ", ".join(
        f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}" for name, value in values.items()
    )


def sparkline(values: list[float]) -> str:
    """One block character per value, scaled between the smallest and the largest; NaN is a dot."""
    finite = [value for value in values if math.isfinite(value)]
    low, high = (min(finite), max(finite)) if finite else (0.0, 0.0)
    width = (high - low) or 1.0
    return "".join("·" if not math.isfinite(v) else BARS[round((v - low) / width * (len(BARS) - 1))] for v in values)


def _running(trials: list[TrialRecord], config: StudyConfig) -> Table:
    table = Table(box=None, padding=(0, 2), header_style="dim")
    for column in ("trial", "epoch", config.objective.metric, "", "configuration", "worker"):
        table.add_column(column, no_wrap=True, overflow="ellipsis")
    for trial in trials[:12]:
        values = list(trial.values(config.objective.metric).values())
        table.add_row(
            str(trial.key),
            f"{len(trial.epochs)}/{config.budget.epochs}",
            f"{values[-1]:.4f}" if values else "",
            sparkline(values[-20:]),
            shown(trial.parameters),
            trial.worker,
        )
    return table

"""What a person sees while a study runs: one live screen in a terminal, one line per event elsewhere, or nothing."""

import math
import os
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Any, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from search.config import StudyConfig
from search.events import Asked, EpochReported, Event, Failed, Noted, Started, Status, TrialKey
from search.history import History, TrialRecord
from search.space import FloatRange

BARS = "▁▂▃▄▅▆▇█"
WORDS = {"complete": "completed", "prune": "pruned", "fail": "failed"}
BAR = 16  # characters
MOST_RUNNING = 12  # rows of running trials; more fit on few screens
MOST_COLUMNS = 6  # hyperparameters side by side; more of them are written as text
CURVE = 20  # epochs that a sparkline shows


class View:
    """Sees everything and shows nothing."""

    config: StudyConfig | None = None
    history: History

    def watch(self, config: StudyConfig, history: History) -> None:
        """From now on events of this study come."""
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
                metric = self.config.objective.metric if self.config else ""
                end = "" if event.verdict == "continue" else f", {WORDS[event.verdict]}"
                reason = f" ({event.reason})" if event.reason else ""
                value = event.metrics.get(metric, math.nan)
                key = TrialKey(event.number, event.repeat)
                return f"trial {key} epoch {event.epoch}: {metric} {value:.4f}{end}{reason}"
            case Failed():
                return f"trial {TrialKey(event.number, event.repeat)} failed: {event.reason}"
            case Noted():
                return _note_line(event.topic, event.facts)
        return None


class Screen(View):
    """One screen, redrawn twice a second; it is wiped at a good end and stays as it was at any other."""

    def __init__(self, console: Console | None = None):
        # A stream of its own: native libraries greet on the process's stderr, which others may turn away meanwhile.
        self._console = console or Console(file=os.fdopen(os.dup(sys.stderr.fileno()), "w", encoding="utf-8"))
        self._step: tuple[str, int, int] | None = None
        self._heard = time.monotonic()
        self._at_work = False
        self._live = Live(get_renderable=self._render, console=self._console, refresh_per_second=2)

    def watch(self, config: StudyConfig, history: History) -> None:
        self._heard = time.monotonic()
        super().watch(config, history)

    def preparing(self, what: str, done: int, of: int) -> None:
        self._step = None if done >= of else (what, done, of)

    def happened(self, event: Event) -> None:
        self._heard = time.monotonic()
        self._at_work |= isinstance(event, Asked | Started | EpochReported)

    def say(self, text: str) -> None:
        self._console.print(text, markup=False, soft_wrap=True)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._step, self._at_work = None, False
        self._live.transient = kind is None or self.config is None
        self._live.stop()

    def _render(self) -> RenderableType:
        parts: list[RenderableType] = []
        if self.config is not None:
            used = self.history.used_seconds + time.monotonic() - self._heard
            parts += study_screen(self.config, self.history, used, at_work=self._at_work)
        if self._step:
            parts.append(_step_line(*self._step))
        return Group(*parts)


def study_screen(
    config: StudyConfig, history: History, used_seconds: float | None = None, *, at_work: bool = True
) -> list[RenderableType]:
    """How far the study is, the best so far, what runs now, and what went wrong.

    Args:
        config: The study.
        history: May grow meanwhile: it is read once.
        used_seconds: Of study time until now; default: until the last event.
        at_work: Whether a driver is; without one, trials that were running wait to be taken up again.
    """
    every = list(history.trials.values())  # a copy in one step, because another thread adds to it
    if not at_work:
        every = [trial if trial.ended else replace(trial, status="waiting") for trial in every]
    trials = [trial for trial in every if not trial.repeat]
    used = history.used_seconds if used_seconds is None else used_seconds
    parts: list[RenderableType] = [_header(config, trials, [trial for trial in every if trial.repeat], used)]
    best, running = best_so_far(trials, config), [trial for trial in every if trial.status == "running"]
    if best or running:
        parts += ["", _table(config, best, running[:MOST_RUNNING])]
    if len(running) > MOST_RUNNING:
        parts.append(Text(f" and {len(running) - MOST_RUNNING} more are running", style="dim"))
    failed = [trial for trial in every if trial.status == "failed"]
    if failed:
        last = f"trial {failed[-1].key} failed: {' '.join((failed[-1].reason or '').split())}"
        parts += ["", Text(f" {last}", style="red", no_wrap=True, overflow="ellipsis")]
    winner = history.note("winner")
    if winner:
        parts += ["", Text(f" {_note_line('winner', winner)}")]
    return parts


def best_so_far(trials: Sequence[TrialRecord], config: StudyConfig) -> tuple[TrialRecord, int, float] | None:
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
    return ", ".join(f"{name} {_short(value)}" for name, value in values.items())


def sparkline(values: Sequence[float]) -> str:
    """One block character per value, scaled between the smallest and the largest; NaN is a dot."""
    finite = [value for value in values if math.isfinite(value)]
    low, high = (min(finite), max(finite)) if finite else (0.0, 0.0)
    width = (high - low) or 1.0
    return "".join("·" if not math.isfinite(v) else BARS[round((v - low) / width * (len(BARS) - 1))] for v in values)


def duration(seconds: float) -> str:
    """`45 s`, `3 min 05 s` or `2 h 05 min`."""
    minutes, rest = divmod(int(seconds), 60)
    hours, left = divmod(minutes, 60)
    if hours:
        return f"{hours} h {left:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def _header(config: StudyConfig, trials: list[TrialRecord], reruns: list[TrialRecord], used: float) -> RenderableType:
    """A bar for each thing that is used up: trials, time, the finalists' reruns."""
    budget, limit = config.budget, config.budget.wall_seconds
    epochs = sum(len(trial.epochs) for trial in (*trials, *reruns))
    title = Text.assemble(
        (config.name or "study", "bold"), f"  {epochs} epoch{'s' * (epochs != 1)} in {duration(used)}"
    )
    grid = Table.grid(padding=(0, 2, 0, 1))
    for width in (BAR, 20, 0):  # wide enough that growing numbers move nothing
        grid.add_column(min_width=width, no_wrap=True, overflow="ellipsis")
    grid.add_row(*_share("trials", trials, max(len(trials), budget.trials)))
    if limit is not None and not reruns:
        grid.add_row(_bar(min(used, limit), limit), f"{duration(max(0.0, limit - used))} left")
    if reruns:
        wanted = config.final.repeats * min(config.final.finalists, sum(t.status == "completed" for t in trials))
        grid.add_row(*_share("reruns", reruns, max(len(reruns), wanted)))
    return Group(title, grid)


def _share(what: str, trials: list[TrialRecord], of: int) -> tuple[RenderableType, str, str]:
    ended = sum(trial.ended for trial in trials)
    counts = Counter(trial.status for trial in trials)
    statuses: tuple[Status, ...] = ("completed", "pruned", "failed", "running", "waiting")
    said = ", ".join(f"{counts[status]} {status}" for status in statuses if counts[status])
    return _bar(ended, of), f"{ended} of {of} {what}", said


def _bar(done: float, of: float) -> ProgressBar:
    return ProgressBar(total=of, completed=done, width=BAR)


def _table(config: StudyConfig, best: tuple[TrialRecord, int, float] | None, running: list[TrialRecord]) -> Table:
    """The best trial and those that run; a column for each hyperparameter."""
    metric, epochs = config.objective.metric, config.budget.epochs
    table = Table(box=None, padding=(0, 1), header_style="dim")
    table.add_column("", no_wrap=True, min_width=len("trial 10.1"))
    for name, width in (("epoch", 2 * len(str(epochs)) + 1), (metric, len("0.1234"))):
        table.add_column(name, justify="right", no_wrap=True, min_width=max(width, len(name)))
    table.add_column("", no_wrap=True, min_width=min(CURVE, epochs))  # as wide as it will be: nothing moves later
    if len(config.space) > MOST_COLUMNS:
        table.add_column("configuration")
    else:
        for name, parameter in config.space.items():
            long = isinstance(parameter, FloatRange) and not parameter.step
            table.add_column(Text(name.replace("_", "\n")), justify="right", min_width=9 if long else None)
    if best:
        trial, epoch, value = best
        table.add_row(f"best {trial.key}", *_row(config, trial, epoch, value), style="green")
    for trial in running:
        latest = trial.epochs[-1].metrics.get(metric, math.nan) if trial.epochs else math.nan
        table.add_row(f"trial {trial.key}", *_row(config, trial, len(trial.epochs), latest))
    return table


def _row(config: StudyConfig, trial: TrialRecord, epoch: int, value: float) -> list[RenderableType]:
    curve = [each.metrics.get(config.objective.metric, math.nan) for each in trial.epochs]
    parameters = [Text(_short(trial.parameters.get(name, ""))) for name in config.space]
    return [
        f"{epoch}/{config.budget.epochs}",
        f"{value:.4f}" if math.isfinite(value) else "",
        sparkline(curve[-CURVE:]),
        *([Text(shown(trial.parameters))] if len(parameters) > MOST_COLUMNS else parameters),
    ]


def _step_line(what: str, done: int, of: int) -> RenderableType:
    if of == 1:
        return Text(f" {what} …", style="dim")
    line = Table.grid(padding=(0, 2))
    line.add_row(Text(f" {what}", style="dim"), _bar(done, of), f"{done} of {of}")
    return line


def _note_line(topic: str, facts: Mapping[str, Any]) -> str:
    match topic:
        case "winner":
            return f"winner: trial {facts.get('number')}; {facts.get('reason')}"
        case "test_opened":
            return f"test set opened, time {facts.get('times')}"
    return f"noted {topic}"


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)

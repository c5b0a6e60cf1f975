"""One screen about a study: `search.standing` drawn, as wide and as high as there is room."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.measure import Measurement
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from search.config import StudyConfig
from search.events import Status
from search.history import History, TrialRecord
from search.space import FloatRange
from search.standing import (
    FeatureUse,
    Pace,
    best_so_far,
    epochs_at_most,
    feature_use,
    hosts,
    last_with,
    memory,
    pace,
    seconds_left,
)
from search.words import duration, has, note_line, plural, rate, short, shown, size, sparkline, takes

BAR = 14  # characters
MOST_RUNNING = 12  # rows of running trials; more fit on few screens
MOST_COLUMNS = 6  # hyperparameters side by side; more of them are written as text
NARROW = 64  # columns; below, bars make room for words
TINY = 50  # columns; below, curves do
COLOURS: dict[Status, str] = {
    "completed": "green",
    "pruned": "yellow",
    "failed": "red",
    "running": "cyan",
    "waiting": "dim",
}


@dataclass(frozen=True)
class Layout:
    """What a table of trials shows beside number, epoch and value.

    Attributes:
        curve: Epochs that a sparkline shows; 0: none.
        columns: Whether each hyperparameter has a column of its own.
        worker: Whether to say who trains a trial, and for how long.
    """

    curve: int
    columns: bool
    worker: bool = False


# The first that fits is taken; where none does, hyperparameters are written one after the other.
LAYOUTS = (Layout(20, True, True), Layout(20, True), Layout(8, True))


@dataclass(frozen=True)
class Board:
    """How far a study is, the best so far, what runs now, and what went wrong. Drawn by Rich.

    Attributes:
        trials: The search's own.
        reruns: The finalists'.
        cluster: What Ray had, as noted; None before it was started.
        winner: As noted; None before one is named.
        used: Seconds of study time.
        at_work: Whether a driver is.
        fitted: Whether to leave out what is higher than the terminal.
    """

    config: StudyConfig
    trials: Sequence[TrialRecord]
    reruns: Sequence[TrialRecord]
    cluster: Mapping[str, Any] | None
    winner: Mapping[str, Any] | None
    used: float
    at_work: bool = True
    fitted: bool = False

    @classmethod
    def of(
        cls,
        config: StudyConfig,
        history: History,
        used: float | None = None,
        *,
        at_work: bool = True,
        fitted: bool = False,
    ) -> Self:
        """The board of a history that may grow meanwhile: it is read once.

        Without a driver at work, trials that were running wait to be taken up again. `used` is by default the time
        until the last event.
        """
        every = list(history.trials.values())  # a copy in one step, because another thread adds to it
        if not at_work:
            every = [trial if trial.ended else replace(trial, status="waiting") for trial in every]
        return cls(
            config=config,
            trials=[trial for trial in every if not trial.repeat],
            reruns=[trial for trial in every if trial.repeat],
            cluster=history.note("cluster"),
            winner=history.note("winner"),
            used=history.used_seconds if used is None else used,
            at_work=at_work,
            fitted=fitted,
        )

    @property
    def every(self) -> list[TrialRecord]:
        """Trials and reruns."""
        return [*self.trials, *self.reruns]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Title, bars, best and running trials, the last reasons."""
        narrow = options.max_width < NARROW
        above: list[RenderableType] = [self._title(), self._bars(narrow), *self._lines()]
        below = self._reasons()
        running = [trial for trial in self.every if trial.status == "running"]
        room = self._room(options.max_height, len(above) + len(below)) if self.fitted else MOST_RUNNING
        best = best_so_far(self.trials, self.config)
        yield from above
        if best or running:
            yield ""
            yield self._table(console, options, best, running[:room])
        if len(running) > room:
            yield Text(f" and {len(running) - room} more are running", style="dim")
        if below:
            yield ""
            yield from below

    def _room(self, height: int, others: int) -> int:
        """Rows for running trials: what is left of the terminal below bars and head, above reasons and a step."""
        head = max((name.count("_") for name in self.config.space), default=0) + 1
        return max(1, min(MOST_RUNNING, height - others - head - len(_bar_rows(self)) - 5))

    def _title(self) -> RenderableType:
        said = f"{duration(self.used)} used"
        left = self._seconds_left()
        if left is not None:
            said += f", about {duration(left)} left"
        return _line(Text.assemble((self.config.name or "study", "bold"), f"  {said}"))

    def _seconds_left(self) -> float | None:
        if not self.at_work or self.winner:
            return None
        if self.reruns:
            return seconds_left(self.reruns, self._wanted_reruns(), self.used)
        left = seconds_left(self.trials, max(len(self.trials), self.config.budget.trials), self.used)
        limit = self.config.budget.wall_seconds
        return left if left is None or limit is None else min(left, max(0.0, limit - self.used))

    def _wanted_reruns(self) -> int:
        final = self.config.final
        completed = sum(trial.status == "completed" for trial in self.trials)
        return max(len(self.reruns), final.repeats * min(final.finalists, completed))

    def _bars(self, narrow: bool) -> RenderableType:
        grid = Table.grid(padding=(0, 2, 0, 0))
        if not narrow:
            grid.add_column(min_width=BAR + 1, no_wrap=True)
        grid.add_column(min_width=15, no_wrap=True, overflow="ellipsis")  # growing numbers move nothing
        grid.add_column(no_wrap=True, overflow="ellipsis")
        for done, of, counted, said in _bar_rows(self):
            bar = ProgressBar(total=max(of, 1e-9), completed=min(done, of), width=BAR, complete_style="cyan")
            grid.add_row(*(() if narrow else (_indented(bar),)), Text(counted), said)
        return grid

    def _lines(self) -> list[RenderableType]:
        """Who works with what, and what the store of features saves them."""
        running = [trial for trial in self.every if trial.status == "running"]
        lines = []
        if self.at_work and self.cluster:
            lines.append(("workers", _workers(running, self.cluster)))
        store = feature_use(self.every)
        if store:
            lines.append(("features", _store(store)))
        return [_line(Text.assemble((f" {label:<9}", "dim"), text)) for label, text in lines]

    def _reasons(self) -> list[RenderableType]:
        lines: list[RenderableType] = []
        for status in ("pruned", "failed"):
            trial = last_with(self.every, status)
            if trial:
                reason = " ".join((trial.reason or "").split())
                lines.append(_line(Text(f" trial {trial.key} {status}: {reason}", style=COLOURS[status])))
        if self.winner:
            lines.append(_line(Text(f" {note_line('winner', self.winner)}", style="green")))
        return lines

    def _table(
        self,
        console: Console,
        options: ConsoleOptions,
        best: tuple[TrialRecord, int, float] | None,
        running: list[TrialRecord],
    ) -> Table:
        """The best trial and those that run, in the fullest layout that fits."""
        boundless = options.update(width=1000, max_width=1000)
        if len(self.config.space) <= MOST_COLUMNS:
            for layout in LAYOUTS:
                table = self._filled(layout, best, running)
                if Measurement.get(console, boundless, table).maximum <= options.max_width:
                    return table
        return self._filled(Layout(0 if options.max_width < TINY else 8, columns=False), best, running)

    def _filled(self, layout: Layout, best: tuple[TrialRecord, int, float] | None, running: list[TrialRecord]) -> Table:
        metric, epochs = self.config.objective.metric, self.config.budget.epochs
        table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim", expand=not layout.columns)
        table.add_column("", no_wrap=True, min_width=len(" trial 10"))
        for name, width in (("epoch", 2 * len(str(epochs)) + 1), (metric, len("0.1234"))):
            table.add_column(Text(name.replace("_", "\n")), justify="right", no_wrap=True, min_width=width)
        if layout.curve:  # as wide as it will be: nothing moves later
            table.add_column("", no_wrap=True, min_width=min(layout.curve, epochs))
        if layout.columns:
            for name, parameter in self.config.space.items():
                long = isinstance(parameter, FloatRange) and not parameter.step
                table.add_column(Text(name.replace("_", "\n")), justify="right", min_width=9 if long else None)
        else:
            table.add_column("configuration", no_wrap=True, overflow="ellipsis", ratio=1)  # what is left
        if layout.worker:
            table.add_column("time", justify="right", no_wrap=True, min_width=len("10 min 00 s"))
            table.add_column("worker", no_wrap=True)
        if best:
            trial, epoch, value = best
            table.add_row(f" best {trial.key}", *self._row(layout, trial, epoch, value), style="green")
        for trial in running:
            latest = trial.epochs[-1].metrics.get(metric, math.nan) if trial.epochs else math.nan
            table.add_row(f" trial {trial.key}", *self._row(layout, trial, len(trial.epochs), latest))
        return table

    def _row(self, layout: Layout, trial: TrialRecord, epoch: int, value: float) -> list[RenderableType]:
        metric, space = self.config.objective.metric, self.config.space
        cells: list[RenderableType] = [
            f"{epoch}/{self.config.budget.epochs}",
            f"{value:.4f}" if math.isfinite(value) else "",
        ]
        if layout.curve:
            curve = [each.metrics.get(metric, math.nan) for each in trial.epochs]
            cells.append(sparkline(curve[-layout.curve :]))
        if layout.columns:
            cells += [Text(short(trial.parameters.get(name, ""))) for name in space]
        else:
            cells.append(Text(shown({name: trial.parameters[name] for name in space if name in trial.parameters})))
        if layout.worker:
            end = self.used if trial.ended_at is None else trial.ended_at
            cells += ["" if trial.started_at is None else duration(end - trial.started_at), Text(trial.worker)]
        return cells


def _bar_rows(board: Board) -> list[tuple[float, float, str, Text]]:
    """Done, of how much, the same in words, and a remark, for each thing that is used up."""
    trials, config = board.trials, board.config
    wanted = max(len(trials), config.budget.trials)
    done, most = sum(len(trial.epochs) for trial in trials), epochs_at_most(trials, wanted, config.budget.epochs)
    speed = _speed(pace(board.every, board.used) if board.at_work else None)
    rows = [_share("trials", trials, wanted), (float(done), float(most), f"{done} of {most} epochs", speed)]
    limit = config.budget.wall_seconds
    if limit is not None and not board.reruns:
        rows.append(
            (board.used, limit, f"{duration(max(0.0, limit - board.used))} left", Text(f"of {duration(limit)}"))
        )
    if board.reruns:
        rows.append(_share("reruns", board.reruns, board._wanted_reruns()))
    return rows


def _share(what: str, trials: Sequence[TrialRecord], of: int) -> tuple[float, float, str, Text]:
    ended, counts = sum(trial.ended for trial in trials), Counter(trial.status for trial in trials)
    parts = [Text(f"{counts[status]} {status}", style=colour) for status, colour in COLOURS.items() if counts[status]]
    return float(ended), float(of), f"{ended} of {of} {what}", Text(", ").join(parts)


def _speed(found: Pace | None) -> Text:
    rates = [(found.epochs, "epochs"), (found.trials, "trials")] if found else []
    return Text(", ".join(rate(per_second, what) for per_second, what in rates if per_second))


def _workers(running: Sequence[TrialRecord], cluster: Mapping[str, Any]) -> str:
    """`2 of 4 at once on left, each 1 CPU of 8 CPUs, 0 GPUs; 1.8 GB in use`."""
    where = ", ".join(host for host, _ in hosts(running).most_common(3))
    at_once = f"{len(running)} of {cluster['trials_at_once']} at once{f' on {where}' if where else ''}"
    held = memory(running)
    return f"{at_once}, each {takes(cluster)} of {has(cluster)}" + (f"; {size(held)} in use" if held else "")


def _store(use: FeatureUse) -> str:
    asked = use.found + use.built
    return f"{use.found} of {plural(asked, 'time')} ready, {use.built} built, {size(use.bytes)} kept"


def _line(text: Text) -> Text:
    text.no_wrap, text.overflow = True, "ellipsis"
    return text


def _indented(bar: ProgressBar) -> RenderableType:
    grid = Table.grid(padding=(0, 0, 0, 1), pad_edge=True)
    grid.add_row(bar)
    return grid

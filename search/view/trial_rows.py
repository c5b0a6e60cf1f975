"""Trials as rows: the best and those that run, in the fullest table that fits."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from search.config import StudyConfig
from search.history import TrialRecord
from search.space import FloatRange
from search.view.words import duration, short, shown, sparkline

MOST_COLUMNS = 6  # hyperparameters side by side; more of them are written as text
TINY = 50  # columns; below, curves make room for words


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
class TrialRows:
    """A row for the best trial, with its best epoch and value, and one for each that runs. Drawn by Rich.

    Attributes:
        used: Seconds of study time.
    """

    config: StudyConfig
    best: tuple[TrialRecord, int, float] | None
    running: Sequence[TrialRecord]
    used: float

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The first layout that fits."""
        boundless = options.update(width=1000, max_width=1000)
        for layout in LAYOUTS if len(self.config.space) <= MOST_COLUMNS else ():
            table = self._table(layout)
            if Measurement.get(console, boundless, table).maximum <= options.max_width:
                yield table
                return
        yield self._table(Layout(0 if options.max_width < TINY else 8, columns=False))

    def _table(self, layout: Layout) -> Table:
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
        if self.best:
            trial, epoch, value = self.best
            table.add_row(f" best {trial.key}", *self._row(layout, trial, epoch, value), style="green")
        for trial in self.running:
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

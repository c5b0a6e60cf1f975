"""One screen about a study: `search.view.standing` drawn, as wide and as high as there is room."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from search.config import StudyConfig
from search.events import Status
from search.history import History, TrialRecord
from search.view.standing import (
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
from search.view.trial_rows import TrialRows
from search.view.words import duration, has, note_line, plural, rate, size, takes

BAR = 14  # characters
MOST_RUNNING = 12  # rows of running trials; more fit on few screens
NARROW = 64  # columns; below, bars make room for words
COLOURS: dict[Status, str] = {
    "completed": "green",
    "pruned": "yellow",
    "failed": "red",
    "running": "cyan",
    "waiting": "dim",
}


@dataclass(frozen=True)
class Board:
    """How far a study is, the best so far, what runs now, and what went wrong. Drawn by Rich.

    Attributes:
        trials: The search's own.
        reruns: The finalists'.
        cluster: What Ray had, as noted; None before it was started.
        winner: As noted; None before one is named.
        used: Seconds of study time.
        aside: Of these, what reruns and the final stage took.
        at_work: Whether a driver is.
        fitted: Whether to leave out what is higher than the terminal.
    """

    config: StudyConfig
    trials: Sequence[TrialRecord]
    reruns: Sequence[TrialRecord]
    cluster: Mapping[str, Any] | None
    winner: Mapping[str, Any] | None
    used: float
    aside: float = 0.0
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
            aside=history.aside_seconds,
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
            yield TrialRows(self.config, best, running[:room], self.used)
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

    @property
    def searched(self) -> float:
        """Seconds of the search's time budget that are used up."""
        return self.used - self.aside

    @property
    def searching(self) -> bool:
        """Whether trials of the search are still to come or to end: reruns and a winner are then of an earlier one."""
        if any(rerun.status == "running" for rerun in self.reruns):
            return False
        limit = self.config.budget.wall_seconds
        to_come = len(self.trials) < self.config.budget.trials and (limit is None or self.searched < limit)
        return to_come or not all(trial.ended for trial in self.trials)

    def _seconds_left(self) -> float | None:
        if not self.at_work:
            return None
        if not self.searching:
            done = not self.reruns or (self.winner and all(rerun.ended for rerun in self.reruns))
            return None if done else seconds_left(self.reruns, self._wanted_reruns(), self.used)
        left = seconds_left(self.trials, max(len(self.trials), self.config.budget.trials), self.used)
        limit = self.config.budget.wall_seconds
        return left if left is None or limit is None else min(left, max(0.0, limit - self.searched))

    def _wanted_reruns(self) -> int:
        final = self.config.final
        candidates = sum(trial.usable and bool(trial.values(self.config.objective.metric)) for trial in self.trials)
        return max(len(self.reruns), final.repeats * min(final.finalists, candidates))

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


def _bar_rows(board: Board) -> list[tuple[float, float, str, Text]]:
    """Done, of how much, the same in words, and a remark, for each thing that is used up."""
    trials, config = board.trials, board.config
    wanted = max(len(trials), config.budget.trials)
    done, most = sum(len(trial.epochs) for trial in trials), epochs_at_most(trials, wanted, config.budget.epochs)
    speed = _speed(pace(board.every, board.used) if board.at_work else None)
    rows = [_share("trials", trials, wanted), (float(done), float(most), f"{done} of {most} epochs", speed)]
    limit = config.budget.wall_seconds
    if limit is not None and (board.searching or not board.reruns):
        left = max(0.0, limit - board.searched)
        rows.append((board.searched, limit, f"{duration(left)} left", Text(f"of {duration(limit)}")))
    if board.reruns and not board.searching:
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

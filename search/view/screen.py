"""The live view in a terminal: one screen, redrawn while a study runs."""

import os
import sys
import time
from types import TracebackType
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.segment import SegmentLines
from rich.table import Table
from rich.text import Text

from search.config import StudyConfig
from search.events import Asked, EpochReported, Event, Started
from search.history import History
from search.view.board import BAR, Board
from search.view.progress import View

SHARE = 0.05  # of the time, at most, goes into drawing: with 10,000 trials it takes a quarter of a second


class Screen(View):
    """One screen, redrawn twice a second; it is wiped at a good end and stays as it was at any other."""

    def __init__(self, console: Console | None = None):
        # A stream of its own: native libraries greet on the process's stderr, which others may turn away meanwhile.
        self._console = console or Console(file=os.fdopen(os.dup(sys.stderr.fileno()), "w", encoding="utf-8"))
        self._step: tuple[str, int, int] | None = None
        self._heard = time.monotonic()
        self._drawn: RenderableType = ""
        self._next = 0.0
        self._live = Live(get_renderable=self._render, console=self._console, refresh_per_second=2)

    def watch(self, config: StudyConfig, history: History, age: float = 0.0) -> None:
        self._heard = time.monotonic() - age
        super().watch(config, history)

    def preparing(self, what: str, done: int, of: int) -> None:
        self._step = None if done >= of else (what, done, of)

    def happened(self, event: Event) -> None:
        self._heard = time.monotonic()
        self.at_work |= isinstance(event, Asked | Started | EpochReported)

    def say(self, text: str) -> None:
        self._console.print(text, markup=False, soft_wrap=True)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._step, self.at_work, self._next = None, False, 0.0
        self._live.transient = kind is None or self.config is None
        self._live.stop()

    def _render(self) -> RenderableType:
        """What was drawn last, while drawing it again would take more than its share of a core from the driver."""
        began = time.monotonic()
        if began >= self._next:
            self._drawn = SegmentLines(self._console.render_lines(self.draw(), pad=False), new_lines=True)
            self._next = time.monotonic() + (time.monotonic() - began) / SHARE
        return self._drawn

    def draw(self) -> RenderableType:
        """The study and the step as they are now."""
        parts: list[RenderableType] = []
        if self.config is not None:
            used = self.history.used_seconds
            if self.at_work:
                used += time.monotonic() - self._heard
            parts.append(Board.of(self.config, self.history, used, at_work=self.at_work, fitted=True))
        if self._step:
            parts.append(_step_line(*self._step))
        return Group(*parts)


def _step_line(what: str, done: int, of: int) -> RenderableType:
    if of == 1:
        return Text(f" {what} …", style="dim")
    line = Table.grid(padding=(0, 2))
    line.add_row(Text(f" {what}", style="dim"), ProgressBar(total=of, completed=done, width=BAR), f"{done} of {of}")
    return line

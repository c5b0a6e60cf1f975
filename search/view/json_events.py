"""A study as a stream of JSON objects, one a line, for programs. docs/follow_a_search.md lists every key."""

import json
import sys
import time
from types import TracebackType
from typing import Any

from search.config import StudyConfig
from search.events import Event, to_json, without_nan
from search.history import History
from search.interruption import Interrupted
from search.view.progress import View
from search.view.standing import best_so_far

PAUSE = 1.0  # seconds between two lines about one step


class JsonEvents(View):
    """Writes to standard output. Keys are never renamed; new ones may come."""

    def __init__(self) -> None:
        self._step = ("", 0.0)

    def watch(self, config: StudyConfig, history: History, age: float = 0.0) -> None:
        super().watch(config, history, age)
        _write(
            "study",
            name=config.name,
            metric=config.objective.metric,
            direction=config.objective.direction,
            trials=config.budget.trials,
            epochs=config.budget.epochs,
            wall_seconds=config.budget.wall_seconds,
            used_seconds=history.used_seconds,
        )

    def preparing(self, what: str, done: int, of: int) -> None:
        before, at = self._step
        if what != before or done >= of or time.monotonic() - at >= PAUSE:
            self._step = (what if done < of else "", time.monotonic())
            _write("step", what=what, done=done, of=of)

    def happened(self, event: Event) -> None:
        values = json.loads(to_json(event))
        values.pop("system_attributes", None)  # the sampler's own notes
        _write(event.kind, **values, used_seconds=self.history.used_seconds)

    def say(self, text: str) -> None:
        _write("said", text=text)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        outcome = "done" if error is None else "interrupted" if isinstance(error, Interrupted) else "stopped"
        reason = None if error is None else str(error) or type(error).__name__
        _write("ended", outcome=outcome, reason=reason, **({} if self.config is None else self._summary(self.config)))

    def _summary(self, config: StudyConfig) -> dict[str, Any]:
        trials, winner = self.history.search_trials(), self.history.note("winner")
        best = best_so_far(trials, config)
        values = best and {
            "number": best[0].number,
            "epoch": best[1],
            "value": best[2],
            "parameters": best[0].parameters,
        }
        return {"ended_trials": sum(trial.ended for trial in trials), "best": values, "winner": winner}


def _write(kind: str, **values: Any) -> None:
    # A winner of a single rerun has no standard error, for example.
    sys.stdout.write(json.dumps({"kind": kind, **without_nan(values)}, ensure_ascii=False, allow_nan=False) + "\n")
    sys.stdout.flush()

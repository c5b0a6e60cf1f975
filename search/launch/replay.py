"""A job's log, told to a view as if the search ran here."""

import json
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from search.config import StudyConfig
from search.events import KINDS, Event, SessionOpened, from_json
from search.follow import Follower
from search.history import History
from search.view.progress import View

RAYS_OWN = ("Running entrypoint for job ", "Runtime env is setting up")


class Replay:
    """Takes a log's bytes as they come; a piece may end anywhere.

    Attributes:
        seen: Bytes so far, so that a connection made anew goes on behind them.
        outcome: How the search says that it ended (`done`, `interrupted`, `stopped`); None until it does.
        reason: Why, where it was not at its end.
    """

    def __init__(self, view: View, config: StudyConfig, earlier: Sequence[tuple[float, Event]] = ()):
        """Args:
        view: Is told.
        config: The study.
        earlier: What a ledger that was read after the last session began has: moments in it, and events.
        """
        self.seen = 0
        self.outcome: str | None = None
        self.reason: str | None = None
        self._view, self._config, self._earlier = view, config, list(earlier)
        self._history = History()
        self._rest = b""

    def take(self, piece: bytes) -> None:
        """More of the log."""
        self.seen += len(piece)
        *lines, self._rest = (self._rest + piece).split(b"\n")
        for line in lines:
            self._line(line.decode(errors="replace"))

    def close(self) -> None:
        """The log is over."""
        if self._rest:
            self._line(self._rest.decode(errors="replace"))
        self._rest = b""

    def _line(self, line: str) -> None:
        values = _object(line)
        if values is None:
            if line.strip() and not any(own in line for own in RAYS_OWN):
                self._view.say(_harmless(line))
            return
        kind = values.pop("kind")
        match kind:
            case "study":
                self._open(values)
            case "step":
                self._view.preparing(values["what"], values["done"], values["of"])
            case "said":
                self._view.say(_harmless(values["text"]))
            case "ended":
                self.outcome, self.reason = values["outcome"], values["reason"]
            case _ if kind in KINDS:
                self._happened(kind, values)

    def _open(self, values: dict[str, Any]) -> None:
        """The search tells its budget, which may be larger than ours."""
        budget = {name: values[name] for name in ("trials", "epochs", "wall_seconds")}
        self._config = self._config.model_copy(update={"budget": self._config.budget.model_copy(update=budget)})

    def _happened(self, kind: str, values: dict[str, Any]) -> None:
        used = values.pop("used_seconds")
        event = from_json(kind, json.dumps(values))
        if isinstance(event, SessionOpened):
            self._history = History(_before(self._earlier, event))
            self._view.watch(self._config, self._history)
            self._view.at_work = True
        opens = isinstance(event, SessionOpened)
        with suppress(KeyError):  # of a trial that nothing is known of, because the earlier ledger is lost
            self._history.apply(0.0 if opens else used - self._history.used_before_session, event)
            self._view.happened(event)


def _harmless(text: str) -> str:
    """Text for a terminal, whose cursor it cannot move."""
    return "".join(each if each.isprintable() or each == "\t" else "�" for each in text)


def read_events(ledger: Path) -> list[tuple[float, Event]]:
    """All events of a ledger that was fetched, with their moments within their sessions; none where there is none."""
    return [(happening.elapsed, happening.event) for happening in Follower(ledger).new()] if ledger.exists() else []


def _before(events: list[tuple[float, Event]], session: SessionOpened) -> list[tuple[float, Event]]:
    """What happened before a session, which the ledger may already have."""
    at = [position for position, (_, event) in enumerate(events) if event == session]
    return events[: at[-1]] if at else events


def _object(line: str) -> dict[str, Any] | None:
    if line.startswith('{"kind": '):
        with suppress(json.JSONDecodeError):
            return dict(json.loads(line))
    return None

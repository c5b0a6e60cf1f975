"""Whether and when a lost trial runs again: bounded, with growing waits, charged only where it may be to blame."""

from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

Cause = Literal["died", "memory", "hung", "node", "made_room"]
"""Why a trial lost its worker: the process died, memory ran out, nothing was heard of it, its node went away, or the
worker ended before it took the trial.
"""

MOST_UNCHARGED = 20  # losses in a row that are nobody's fault; an epoch in between starts the count again
MOST_HANGS = 2  # the second time it is the trial's own doing
FIRST_WAIT, LONGEST_WAIT = 2.0, 60.0  # seconds
MEMORY_WAIT = 10.0  # seconds; what filled the memory may be another trial, which needs time to end


class Death(NamedTuple):
    """Why a trial lost its worker, and a sentence about it."""

    cause: Cause
    reason: str


@dataclass(frozen=True)
class Losses:
    """What befell one trial in this session.

    Attributes:
        charged: Losses that may be the trial's own fault.
        hung: How many of them were hangs.
        fruitless: Losses since its last new epoch.
        epochs: Epochs it had reported at the last loss.
        cause: Of the last loss.
    """

    charged: int = 0
    hung: int = 0
    fruitless: int = 0
    epochs: int = 0
    cause: Cause = "died"

    def and_now(self, cause: Cause, epochs: int) -> "Losses":
        """One loss more, after so many reported epochs."""
        return replace(
            self,
            charged=self.charged + (cause in ("died", "memory", "hung")),
            hung=self.hung + (cause == "hung"),
            fruitless=1 if epochs > self.epochs else self.fruitless + 1,
            epochs=epochs,
            cause=cause,
        )

    def given_up(self, retries: int) -> str | None:
        """Why the trial is not tried again; None while it is."""
        if self.hung >= MOST_HANGS:
            return f"timeout: it hung {self.hung} times"
        if self.charged > retries:
            return "timeout: it hung" if self.cause == "hung" else f"its worker died {_times(self.charged)}"
        if self.fruitless > MOST_UNCHARGED:
            return f"it lost its worker {_times(self.fruitless)} without a new epoch"
        return None

    @property
    def wait(self) -> float:
        """Seconds until it runs again: none after a first loss, then doubling up to `LONGEST_WAIT`."""
        growing = FIRST_WAIT * 2.0 ** min(self.fruitless - 2, 10) if self.fruitless > 1 else 0.0
        return min(LONGEST_WAIT, max(growing, MEMORY_WAIT if self.cause == "memory" else 0.0))


def read_death(error: str, began: bool) -> Death:
    """What Ray's words about a trial's end mean.

    Args:
        error: The text of Ray's exception; empty when there is none.
        began: Whether the worker had taken the trial.
    """
    lines = [line.strip() for line in error.splitlines() if line.strip()]
    last = lines[-1] if lines else "its worker died"
    if "its node has died" in error or "node it was on" in error.lower():
        return Death("node", f"its node died: {last.removeprefix('the actor' + chr(39) + 's node was ')}")
    if "running low on memory" in error:
        sentence = next(line for line in lines if "running low on memory" in line)
        return Death("memory", f"its worker was ended because the node ran out of memory: {sentence}")
    if "OutOfReach" in error:
        return Death("node", last.rpartition("OutOfReach: ")[2])
    if "is unavailable" in error:
        return Death("node", "its worker could not be reached")
    if "worker process has died" in last:
        last = "its worker process has died: " + _exit_detail(last)
    broke_at_start = "raised in its creation task" in error
    return Death("died" if began or broke_at_start else "made_room", last)


def _exit_detail(line: str) -> str:
    """Ray's explanation without its list of what might have been."""
    detail = line.partition("Worker exit detail: ")[2] or line
    return detail.partition(" Some common causes")[0]


def _times(count: int) -> str:
    return f"{count} times" if count > 1 else "once"

"""The errors a user of `search` meets. A programming error stays an ordinary exception."""

from collections.abc import Sequence


class ConfigurationError(ValueError):
    """The study cannot start as it was asked for. Raised before any trial; nothing was changed.

    Attributes:
        problems: One sentence each: where it stands, what must hold, what came.
    """

    def __init__(self, problems: Sequence[str] | str):
        self.problems = [problems] if isinstance(problems, str) else list(problems)
        super().__init__("\n".join(self.problems))

    def __reduce__(self) -> tuple[type, tuple[list[str]]]:
        return type(self), (self.problems,)


class LedgerError(RuntimeError):
    """The ledger is damaged, locked by another driver, or of another version. Nothing was changed."""


class StudyStopped(RuntimeError):
    """The search ended before it produced what was asked; what was earned is in the ledger and a resume goes on."""

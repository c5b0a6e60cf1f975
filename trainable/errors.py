"""The ways a user's input can stop work. Anything else is a programming error and stays an ordinary exception."""

from collections.abc import Sequence


class InputError(ValueError):
    """What was given (images, groups, weights, a model file) cannot be used. Raised before any training starts.

    Attributes:
        problems: One sentence each: where it stands, what must hold, what came, what to do.
    """

    def __init__(self, problems: Sequence[str] | str):
        self.problems = [problems] if isinstance(problems, str) else list(problems)
        super().__init__("\n".join(self.problems))

    def __reduce__(self) -> tuple[type, tuple[list[str]]]:
        return type(self), (self.problems,)


class TrialError(RuntimeError):
    """One trial cannot go on (a loss that is not finite, memory that is not there). The study does."""


class DeploymentError(RuntimeError):
    """A model written in another format does not do what the trained one does. Nothing was left of it."""

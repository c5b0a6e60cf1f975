"""Drives a study: Ray executes, Optuna decides, the ledger remembers."""

from search.config import StudyConfig
from search.errors import ConfigurationError, LedgerError, StudyStopped

__all__ = ["ConfigurationError", "LedgerError", "StudyConfig", "StudyStopped", "run_study"]


def __getattr__(name: str) -> object:
    if name == "run_study":  # brings Optuna, which takes a second to import
        from search.driver import run_study

        return run_study
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

"""Reads a study's ledger and says what it means; imports neither Ray nor Keras."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from analysis.export import export_trial
    from analysis.selection import choose_winner
    from analysis.trials import (
        filter_trials,
        read_reruns,
        read_table,
        read_trials,
        select_columns,
        sort_trials,
        to_json_rows,
        top,
        write_table,
    )

__all__ = [
    "choose_winner",
    "export_trial",
    "filter_trials",
    "read_reruns",
    "read_table",
    "read_trials",
    "select_columns",
    "sort_trials",
    "to_json_rows",
    "top",
    "write_table",
]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = {"choose_winner": "selection", "export_trial": "export"}.get(name, "trials")
    return getattr(import_module(f"analysis.{home}"), name)  # only now, because pandas takes half a second to import

"""The trial table: one row per trial as the ledger knows it; sorted, filtered, written and read back.

`docs/trial_table.md` explains every column.
"""

import difflib
import json
import math
import operator
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from analysis.text_table import unguarded
from search.config import StudyConfig
from search.errors import ConfigurationError
from search.history import History, TrialRecord
from search.ledger import read_history
from search.paths import find_run
from search.space import Choice, FloatRange, IntRange
from search.whole_file import write_whole

LEADING = {
    "number": "int64",
    "repeat": "int64",
    "status": "str",
    "value": "float64",
    "best_epoch": "Int64",
    "epochs_run": "int64",
}
TIMES = ("train", "validation", "step", "setup", "checkpoint")
TRAILING = {
    **{f"{kind}_seconds": "float64" for kind in TIMES},
    "started_at_seconds": "float64",
    "ended_at_seconds": "float64",
    "attempts": "int64",
    "worker": "str",
    "seed": "int64",
    "reason": "str",
}
FIXED = {**LEADING, "origin": "str", **TRAILING}

_SIGNS: dict[str, Callable[[Any, Any], Any]] = {
    "=": operator.eq,
    "==": operator.eq,
    "!=": operator.ne,
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
}
_EXPRESSION = re.compile(r"\s*([^\s=!<>]+)\s*(==|!=|>=|<=|=|>|<)\s*(.*?)\s*", re.DOTALL)
_TRUTH = {"True": True, "False": False}


def read_trials(run: str | Path) -> pd.DataFrame:
    """The search's own trials, one row each, by number; reruns are in `read_reruns`.

    Args:
        run: A run folder, or the name of one under `runs/`.

    Raises:
        ConfigurationError: when there is no such run.
        LedgerError: when its ledger is missing or damaged.
    """
    return table_from_history(*_read(run))


def read_reruns(run: str | Path) -> pd.DataFrame:
    """The finalists' reruns on fresh seeds, one row each, by number and repeat; `seed` comes third. Else as the trials.

    Raises:
        ConfigurationError: when there is no such run.
        LedgerError: when its ledger is missing or damaged.
    """
    return reruns_from_history(*_read(run))


def table_from_history(history: History, config: StudyConfig) -> pd.DataFrame:
    """`read_trials` of what is already in memory."""
    return _table(history.search_trials(), config).drop(columns="repeat")


def reruns_from_history(history: History, config: StudyConfig) -> pd.DataFrame:
    """`read_reruns` of what is already in memory."""
    table = _table(history.reruns(), config)
    first = ["number", "repeat", "seed"]
    return table[[*first, *(name for name in table.columns if name not in first)]]


def sort_trials(table: pd.DataFrame, by: str, descending: bool = False) -> pd.DataFrame:
    """Rows by one column; equals keep their order, missing values come last either way.

    Raises:
        ConfigurationError: for a column that the table lacks.
    """
    _column(table, by)
    return table.sort_values(by, ascending=not descending, kind="stable", na_position="last", ignore_index=True)


def filter_trials(table: pd.DataFrame, expressions: Iterable[str]) -> pd.DataFrame:
    """Rows for which all expressions hold: `status=completed`, `value>0.8`, `optimizer!=sgd`.

    A missing value satisfies `!=` only. `reason=` and `reason!=`, without a value, ask for missing and present ones.

    Raises:
        ConfigurationError: with every expression that cannot be read or names no column.
    """
    problems: list[str] = []
    keep = pd.Series(True, index=table.index)
    for expression in expressions:
        try:
            keep &= _holds(table, expression)
        except ConfigurationError as error:
            problems += error.problems
    if problems:
        raise ConfigurationError(problems)
    return table[keep].reset_index(drop=True)


def select_columns(table: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    """These columns, in this order.

    Raises:
        ConfigurationError: with every name that the table lacks.
    """
    problems = [_unknown(table, name) for name in names if name not in table.columns]
    if problems:
        raise ConfigurationError(problems)
    return table[list(names)]


def top(table: pd.DataFrame, n: int, direction: Literal["maximize", "minimize"]) -> pd.DataFrame:
    """The at most `n` rows with the best values, best first, failed trials behind all others; rows without a value are
    left out.
    """
    valued = sort_trials(table, "value", descending=direction == "maximize").dropna(subset="value")
    return valued.sort_values("status", key=lambda status: status == "failed", kind="stable", ignore_index=True).head(n)


def write_table(table: pd.DataFrame, path: str | Path) -> None:
    """Write `.csv`, `.parquet` or `.json`, whole or not at all; missing folders are made.

    In CSV, text that a spreadsheet would take for a formula or a number gets a leading apostrophe; `read_table` takes
    it away again.

    Raises:
        ConfigurationError: for another ending.
    """
    path = Path(path)
    content = _by_ending(path, {".csv": to_csv, ".parquet": to_parquet, ".json": _to_json})(table)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, content)


def read_table(path: str | Path) -> pd.DataFrame:
    """The table that `write_table` wrote as `.csv` or `.parquet`: the same values, bit for bit, of the same types.

    CSV knows no types: a hyperparameter's column without any value comes back as missing numbers.

    Raises:
        ConfigurationError: for another ending, or a file that is not such a table.
    """
    path = Path(path)
    read = _by_ending(path, {".csv": _from_csv, ".parquet": pd.read_parquet})
    try:
        return read(path)
    except (OSError, ValueError, TypeError) as error:
        raise ConfigurationError(f"{path}: must be a readable trial table, but {error}") from error


def to_json_rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    """One plain dict per row; whole numbers stay whole, what is missing, NaN or infinite is None."""
    columns = [[_plain(value) for value in table[name].tolist()] for name in table.columns]
    return [dict(zip(table.columns, row, strict=True)) for row in zip(*columns, strict=True)]


def _read(run: str | Path) -> tuple[History, StudyConfig]:
    paths = find_run(run)
    return read_history(paths.ledger), StudyConfig.load(paths.study_file)


def _table(trials: list[TrialRecord], config: StudyConfig) -> pd.DataFrame:
    hyperparameters = {name: _dtype(parameter) for name, parameter in config.space.items()}
    rows = [_row(trial, config) for trial in sorted(trials, key=lambda trial: trial.key)]
    metrics = sorted({name for row in rows for name in row} - {*hyperparameters, *FIXED})
    dtypes = {**LEADING, **hyperparameters, "origin": "str", **dict.fromkeys(metrics, "float64"), **TRAILING}
    return pd.DataFrame({name: _series([row.get(name) for row in rows], dtype) for name, dtype in dtypes.items()})


def _row(trial: TrialRecord, config: StudyConfig) -> dict[str, Any]:
    """Everything known of a trial; a metric gives way to a hyperparameter or fixed column of the same name."""
    best_epoch, value, metrics = _best(trial, config)
    return {
        **metrics,
        **{name: trial.parameters.get(name) for name in config.space},
        "number": trial.number,
        "repeat": trial.repeat,
        "status": trial.status,
        "value": value,
        "best_epoch": best_epoch,
        "epochs_run": len(trial.epochs),
        "origin": trial.origin,
        **{f"{kind}_seconds": math.fsum(e.seconds.get(kind, 0.0) for e in trial.epochs) for kind in TIMES},
        "started_at_seconds": trial.started_at,
        "ended_at_seconds": trial.ended_at,
        "attempts": trial.attempts,
        "worker": trial.worker or None,
        "seed": trial.seed,
        "reason": trial.reason,
    }


def _best(trial: TrialRecord, config: StudyConfig) -> tuple[int | None, float | None, dict[str, float]]:
    """Number, value and metrics of the best epoch."""
    best = trial.best(config.objective)
    if best is None:
        return None, None, {}
    return *best, trial.metrics_at(best[0])


def _dtype(parameter: FloatRange | IntRange | Choice) -> str:
    if not isinstance(parameter, Choice):
        return "Int64" if isinstance(parameter, IntRange) else "float64"
    kinds = {type(value) for value in parameter.values}
    for types, dtype in (({bool}, "boolean"), ({int}, "Int64"), ({int, float}, "float64")):
        if kinds <= types:
            return dtype
    return "str"


def _series(values: list[Any], dtype: str) -> "pd.Series[Any]":
    if dtype == "str":
        values = [None if value is None else str(value) for value in values]
    return pd.Series(values, dtype=dtype)


def _column(table: pd.DataFrame, name: str) -> "pd.Series[Any]":
    if name not in table.columns:
        raise ConfigurationError(_unknown(table, name))
    return table[name]


def _unknown(table: pd.DataFrame, name: str) -> str:
    close = difflib.get_close_matches(name, list(table.columns), n=1, cutoff=0.5)
    hint = f"did you mean `{close[0]}`?" if close else f"columns: {', '.join(table.columns)}"
    return f"{name}: must be a column of the table; {hint}"


def _holds(table: pd.DataFrame, expression: str) -> "pd.Series[bool]":
    match = _EXPRESSION.fullmatch(expression)
    if not match:
        raise ConfigurationError(
            f"{expression!r}: must read column, comparison (=, !=, >, >=, <, <=), value; for example `value>0.8`"
        )
    name, sign, text = match.groups()
    column = _column(table, name)
    if not text and sign in ("=", "==", "!="):
        return column.notna() if sign == "!=" else column.isna()
    held = _SIGNS[sign](column, _comparand(column, sign, text, expression))
    return held.fillna(sign == "!=").astype(bool)


def _comparand(column: "pd.Series[Any]", sign: str, text: str, expression: str) -> Any:
    """The right side of an expression as a value of the column's kind."""
    truths, numbers = pd.api.types.is_bool_dtype(column), pd.api.types.is_numeric_dtype(column)
    if sign not in ("=", "==", "!=") and (truths or not numbers):
        raise ConfigurationError(f"{expression!r}: `{column.name}` has no order; compare it with = or !=")
    if not numbers:
        return text
    value = _TRUTH.get(text.capitalize()) if truths else _number(text)
    if value is None:
        kind = "true or false" if truths else "numbers"
        raise ConfigurationError(f"{expression!r}: `{column.name}` holds {kind}, but got {text!r} to compare with")
    return value


def _number(text: str) -> int | float | None:
    parse = next((parse for parse in (int, float) if _reads(parse, text)), None)
    return parse(text) if parse and text.lower() != "nan" else None


def _by_ending(path: Path, by_ending: dict[str, Any]) -> Callable[[Any], Any]:
    if path.suffix.lower() not in by_ending:
        raise ConfigurationError(f"{path}: must end in {' or '.join(by_ending)}, but ends in {path.suffix!r}")
    return by_ending[path.suffix.lower()]


def to_csv(table: pd.DataFrame) -> str:
    """What `write_table` writes as `.csv`."""
    text = [name for name in map(str, table) if pd.api.types.is_string_dtype(table[name])]
    guarded = {name: table[name].map(_guarded, na_action="ignore") for name in text}
    # Only with this line end, RFC 4180's own, does the writer quote a lone \r, so that it survives the way back.
    return table.assign(**guarded).to_csv(index=False, lineterminator="\r\n")


def to_parquet(table: pd.DataFrame) -> bytes:
    """Parquet as `write_table` writes it."""
    return table.to_parquet(index=False)


def _to_json(table: pd.DataFrame) -> str:
    return json.dumps(to_json_rows(table), ensure_ascii=False, allow_nan=False, indent=1) + "\n"


def _from_csv(path: Path) -> pd.DataFrame:
    cells = pd.read_csv(path, dtype=str, keep_default_na=False, na_filter=False, encoding="utf-8-sig")
    return pd.DataFrame({name: _typed(cells[name].tolist(), FIXED.get(name)) for name in map(str, cells)})


def _guarded(text: str) -> str:
    looks_special = not text or text[0] in "=+-@'\t\r\n" or text in _TRUTH or _reads(float, text)
    return f"'{text}" if looks_special else text


def _typed(cells: list[str], dtype: str | None) -> "pd.Series[Any]":
    """A column of CSV cells as what they say they are; an empty cell is a missing value."""
    dtype = dtype or _inferred([cell for cell in cells if cell])
    parse: dict[str, Callable[[str], Any]] = {"boolean": _TRUTH.__getitem__, "float64": float, "str": unguarded}
    return _series([parse.get(dtype, int)(cell) if cell else None for cell in cells], dtype)


def _inferred(cells: list[str]) -> str:
    if cells and all(cell in _TRUTH for cell in cells):
        return "boolean"
    if cells and all(_reads(int, cell) for cell in cells):
        return "Int64"
    return "float64" if all(_reads(float, cell) for cell in cells) else "str"


def _reads(parse: Callable[[str], Any], text: str) -> bool:
    try:
        parse(text)
    except ValueError:
        return False
    return True


def _plain(value: Any) -> Any:
    return None if pd.isna(value) or (isinstance(value, float) and math.isinf(value)) else value

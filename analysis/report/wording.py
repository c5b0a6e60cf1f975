"""Numbers and lists as a report says them."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

from search.space import Point

NONE = "–"
_NAMES = {"auc": "AUC", "f1": "F1", "brier": "Brier score"}


def number(value: Any) -> str:
    """At most four significant digits; a dash for what is missing, text and truth values as they are."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return NONE
    if isinstance(value, bool | str):
        return str(value)
    if isinstance(value, int) or float(value).is_integer():
        return f"{value:.0f}" if abs(value) < 1e15 else f"{value:.3g}"
    if abs(value) >= 1e-3:
        return f"{value:.4g}"
    mantissa, exponent = f"{value:.2e}".split("e")
    return f"{float(mantissa):g}e{int(exponent)}"


def score(value: float | None) -> str:
    """A value of the objective: three decimals where that says anything."""
    if value is None or math.isnan(value):
        return NONE
    return f"{value:.3f}" if 0.01 <= abs(value) < 1000 or value == 0 else f"{value:.3g}"


def plus_minus(mean: float, error: float | None) -> str:
    """`0.871 ± 0.018`; the mean alone where there is no error."""
    return score(mean) if error is None or math.isnan(error) else f"{score(mean)} ± {error:.2g}"


def interval(mean: float, low: float, high: float) -> str:
    """`0.85 [0.79, 0.90]`; the mean alone where there is no interval."""
    return score(mean) if math.isnan(low) or math.isnan(high) else f"{score(mean)} [{score(low)}, {score(high)}]"


def share(value: float) -> str:
    """`42 %`; two significant digits below one percent."""
    if math.isnan(value):
        return NONE
    return f"{100 * value:.0f} %" if value >= 0.01 or value == 0 else f"{100 * value:.2g} %"


def duration(seconds: float) -> str:
    """`45 s`, `10 min 26 s`, `3 h 12 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.0f} s" if seconds >= 10 or seconds == 0 else f"{seconds:.2g} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60} min"


def count(amount: int, noun: str) -> str:
    """`1 trial`, `24 trials`."""
    plural = f"{noun[:-1]}ies" if noun.endswith("y") else f"{noun}{'es' if noun.endswith('s') else 's'}"
    return f"{number(amount)} {noun if amount == 1 else plural}"


def listed(parts: Iterable[object], last: str = "and") -> str:
    """`a, b and c`."""
    *front, end = [*map(str, parts)] or [""]
    return f"{', '.join(front)} {last} {end}" if front else end


def words(name: str) -> str:
    """`learning_rate` as `learning rate`, `auc` as `AUC`."""
    return _NAMES.get(name, name.replace("_", " "))


def recipe(parameters: Point) -> str:
    """`learning rate 1.5e-4, batch size 16 and freeze depth 3`."""
    return listed(f"{words(name)} {number(value)}" for name, value in parameters.items())


def several(names: Sequence[object], most: int = 3) -> str:
    """The first of many: `a, b, c and 9 more`."""
    rest = len(names) - most
    return listed(names) if rest <= 1 else listed([*names[:most], f"{rest} more"])

"""How numbers, times and curves are said to people."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

BARS = "▁▂▃▄▅▆▇█"


def shown(values: Mapping[str, Any]) -> str:
    """`name value` pairs, numbers to four digits."""
    return ", ".join(f"{name} {short(value)}" for name, value in values.items())


def short(value: Any) -> str:
    """A float to four digits, anything else as it is."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def sparkline(values: Sequence[float]) -> str:
    """One block character per value, scaled between the smallest and the largest; NaN is a dot."""
    finite = [value for value in values if math.isfinite(value)]
    low, high = (min(finite), max(finite)) if finite else (0.0, 0.0)
    width = (high - low) or 1.0
    return "".join("·" if not math.isfinite(v) else BARS[round((v - low) / width * (len(BARS) - 1))] for v in values)


def duration(seconds: float) -> str:
    """`45 s`, `3 min 05 s` or `2 h 05 min`."""
    minutes, rest = divmod(int(seconds), 60)
    hours, left = divmod(minutes, 60)
    if hours:
        return f"{hours} h {left:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def rate(per_second: float, what: str) -> str:
    """`12 epochs/min`, or by the hour what is slower than one a minute."""
    per_minute = per_second * 60
    return f"{per_minute:.3g} {what}/min" if per_minute >= 1 else f"{per_minute * 60:.3g} {what}/h"


def size(count: float) -> str:
    """Bytes as `96 MB` or `1.2 GB`."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"


def plural(count: float, what: str) -> str:
    """`1 epoch`, `2 epochs`."""
    return f"{count:g} {what}{'s' * (count != 1)}"


def note_line(topic: str, facts: Mapping[str, Any]) -> str:
    """What was noted about a study, in a line."""
    match topic:
        case "cluster":
            at_once = plural(facts["trials_at_once"], "trial")
            return f"Ray has {has(facts)}; {at_once} at once, {takes(facts)} each"
        case "winner":
            return f"winner: trial {facts.get('number')}; {facts.get('reason')}"
        case "test_opened":
            return f"test set opened, time {facts.get('times')}"
        case "trial_lost":
            wait = facts.get("again_after_seconds") or 0
            return f"trial {facts.get('trial')} runs again{f' after {wait:.0f} s' * bool(wait)}: {facts.get('reason')}"
    return f"noted {topic}"


def has(cluster: Mapping[str, Any]) -> str:
    """`8 CPUs, 0 GPUs`, and on how many nodes if it is not one."""
    nodes = f" on {cluster['nodes']} nodes" * (cluster["nodes"] != 1)
    return f"{plural(cluster['cpus'], 'CPU')}, {plural(cluster['gpus'], 'GPU')}{nodes}"


def takes(cluster: Mapping[str, Any]) -> str:
    """What one trial takes: `1 CPU`, or `2 CPUs and 0.5 GPUs`."""
    gpus = cluster["gpus_per_trial"]
    return plural(cluster["cpus_per_trial"], "CPU") + (f" and {plural(gpus, 'GPU')}" if gpus else "")

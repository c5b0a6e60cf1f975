"""What commands print: results, tables, what was found about images."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from search.config import StudyConfig
from search.history import History
from search.ledger import read_history
from search.paths import ORIGIN, StudyPaths
from search.retention import bytes_below, checkpoint_bytes
from search.view.standing import best_so_far
from search.view.words import duration, shown

UNFOLDED = 10_000  # columns; wider than any row
out = Console(highlight=False)
err = Console(stderr=True, highlight=False)


def say(text: object) -> None:
    """A line on standard output, as it is: brackets in it are no markup, and it is not broken."""
    out.print(printable(text), soft_wrap=True)


def complain(label: str, text: object) -> None:
    """A line on standard error."""
    err.print(f"[red]{label}:[/] {printable(text)}", soft_wrap=True)


def printable(text: object) -> str:
    """Text for one line of a terminal. Names come from strangers: what would move the cursor, begin a line, turn the
    direction of writing or mean markup is shown as an escape.
    """
    shown = (each if each.isprintable() else each.encode("unicode_escape").decode() for each in str(text))
    return escape("".join(shown))


def near(path: Path) -> Path:
    """The path as short as it can be typed here."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def show_rows(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """A table without borders; missing values are empty, numbers have four digits. Outside a terminal nothing is
    folded.
    """
    table = Table(box=None, header_style="bold")
    for name in columns:
        shown = printable(name)
        table.add_column(shown.replace("_", "_\n") if out.is_terminal else shown, overflow="fold")
    for row in rows:
        table.add_row(*("" if value is None else printable(_number(value)) for value in row.values()))
    (out if out.is_terminal else Console(file=out.file, width=UNFOLDED)).print(table)


def show_best(paths: StudyPaths) -> None:
    """The best trial of the search, its reruns if there are any, and where the run is."""
    config, history = StudyConfig.load(paths.study_file), read_history(paths.ledger)
    best, winner = best_so_far(history.search_trials(), config), history.note("winner")
    if best:
        trial, epoch, value = best
        say(f"best trial {trial.number}: {config.objective.metric} {value:.4f} at epoch {epoch}")
        say(f"  {shown(trial.parameters)}")
    if winner:
        say(f"winner: trial {winner['number']}; {winner['reason']}")
        if history.is_overtaken("winner"):
            say(f"  named before the search went on; `thawline retrain {near(paths.root)}` names it anew")
        say(f"  {shown(winner['parameters'])}")
    say(f"run folder {near(paths.root)}")


def show_state(paths: StudyPaths, config: StudyConfig, history: History, at_work: str | None) -> None:
    """Who works on the run, whether its test set was opened, and what it takes on disk."""
    opened = history.note("test_opened")
    if opened:
        say(f"test set last opened {opened['at']}, {opened['times']} in all")
    parts = {
        folder.name: bytes_below(folder) for folder in (paths.arrays, paths.trials, paths.final) if folder.exists()
    }
    listed = ", ".join(f"{name} {_megabytes(size)}" for name, size in parts.items())
    say(f"on disk {_megabytes(bytes_below(paths.root))}" + (f" ({listed})" if listed else ""))
    kept = checkpoint_bytes(paths)
    say(f"checkpoints {_megabytes(sum(kept.values()))}, of {len(kept)} trial{'s' if len(kept) != 1 else ''}")
    trials, budget = history.search_trials(), config.budget
    again, searched = f"thawline search {near(paths.root)}", history.used_seconds - history.aside_seconds
    if sum(trial.ended for trial in trials) >= budget.trials:
        then = f"`{again} --trials NUMBER` extends it"
    elif all(trial.ended for trial in trials) and searched >= (budget.wall_seconds or math.inf):
        then = f"its {duration(searched)} are used up; `{again} --time-budget TIME` extends it"
    else:
        then = f"`{again}` goes on"
    if (paths.root / ORIGIN).is_file():
        then = (
            "this is a copy of a run on a cluster, as it was when it was fetched; `thawline launch` looks at it there"
        )
    say(f"at work: {at_work}" if at_work else f"no driver is at work; {then}")


def show_final(paths: StudyPaths) -> None:
    """Test scores with their intervals, and the files that were made."""
    document = json.loads((paths.final / "metrics.json").read_text(encoding="utf-8"))
    counts = document["counts"]
    images, groups = sum(counts["images"]["test"].values()), counts["groups"]["test"]
    say(f"locked test set: {images} images of {groups} groups")
    table = Table(box=None)
    for column in ("metric", "value", "95 % interval"):
        table.add_column(column, justify="left" if column == "metric" else "right")
    for metric, score in document.items():
        if isinstance(score, dict) and "interval" in score:
            low, high = score["interval"] or (None, None)
            table.add_row(metric, _number(score["value"]), f"{_number(low)} to {_number(high)}")
    out.print(table)
    say("files:")
    for folder in (paths.root, paths.final, paths.final / "figures"):
        for path in sorted(folder.iterdir()):
            if path.is_file() and path.suffix in (".yaml", ".csv", ".db", ".html", ".keras", ".json", ".png", ".md"):
                say(f"  {near(path)}")


def show_data_check(check: Any) -> None:
    """The findings of `trainable.data_check.check_data`, a block each."""
    columns = ["class", "images", "modes", "formats"]
    show_rows(
        columns,
        ({"class": name, "images": count} | _by_class(check, name) for name, count in check.images_by_class.items()),
    )
    if check.width:
        say(f"size in pixels: width {_range(check.width)}, height {_range(check.height)}")
    say(f"largest class / smallest class: {check.imbalance_ratio:.2f}")
    say(f"duplicates: {len(check.exact_duplicates)} sets of equal files, {len(check.near_duplicates)} of look-alikes")
    if check.split:
        split = (
            {"part": part, "images": f["images"], "groups": f["groups"]}
            | {f"class {name}": count for name, count in f["classes"].items()}
            for part, f in check.split.items()
        )
        show_rows(["planned part", "images", "groups", *check.images_by_class], split)
    _list("unreadable", [f"{entry.file}: {entry.reason}" for entry in check.unreadable])
    _list("look-alikes in several parts", [", ".join(f"{file} ({part})" for file, part in c) for c in check.straddling])
    for warning in check.warnings:
        out.print(f"[yellow]warning:[/] {printable(warning)}", soft_wrap=True)
    if not check.problems:
        say("a search may start")


def _by_class(check: Any, name: str) -> dict[str, str]:
    return {
        what: ", ".join(f"{count} {value}" for value, count in counts[name].items())
        for what, counts in (("modes", check.modes_by_class), ("formats", check.formats_by_class))
    }


def _range(size: Any) -> str:
    return f"{size.smallest} to {size.largest} (median {size.median})"


def _list(title: str, lines: Sequence[str], most: int = 20) -> None:
    if lines:
        say(f"{title}: {len(lines)}")
    for line in lines[:most]:
        say(f"  {line}")
    if len(lines) > most:
        say(f"  and {len(lines) - most} more")


def _number(value: Any) -> str:
    if value is None:
        return "none"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB"

"""Commands that say what came out of a search; they read the ledger and nothing else."""

import json
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from search import console
from search.commands.arguments import SEARCH, Run
from search.config import StudyConfig
from search.console import say
from search.errors import ConfigurationError
from search.paths import find_run

app = typer.Typer()


@app.command(
    rich_help_panel=SEARCH,
    epilog="Examples: thawline trials RUN --top 5; thawline trials RUN --filter 'freeze_depth>=3' --output deep.csv",
)
def trials(
    run: Run,
    format: Annotated[Literal["table", "csv", "json", "parquet"], typer.Option(help="What to print.")] = "table",
    sort: Annotated[str | None, typer.Option(metavar="COLUMN", help="Column to sort by, largest first.")] = None,
    ascending: Annotated[bool, typer.Option("--ascending", help="Smallest first.")] = False,
    filter: Annotated[
        list[str],
        typer.Option(
            metavar="CONDITION", help="Such as status=completed or value>0.8; may be repeated, all must hold."
        ),
    ] = [],  # noqa: B006
    top: Annotated[int | None, typer.Option(min=1, help="Only so many, the best first.")] = None,
    columns: Annotated[
        str | None,
        typer.Option(metavar="NAMES", help="Comma-separated; default: all, but in a printed table only the main ones."),
    ] = None,
    reruns: Annotated[bool, typer.Option("--reruns", help="The finalists' reruns instead.")] = False,
    output: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write there; its ending (.csv, .parquet, .json) is the format.")
    ] = None,
) -> None:
    """The trial table: one row per trial. Every column is explained in docs/trial_table.md."""
    from analysis import trials as tables

    paths = find_run(run)
    config = StudyConfig.load(paths.study_file)
    table = tables.read_reruns(paths.root) if reruns else tables.read_trials(paths.root)
    table = tables.filter_trials(table, filter)
    if top is not None:
        table = tables.top(table, top, config.objective.direction)
    if sort:
        table = tables.sort_trials(table, sort, descending=not ascending)
    if columns:
        table = tables.select_columns(table, [name.strip() for name in columns.split(",")])
    elif format == "table" and not output:
        main = ("number", "repeat", "status", "value", "best_epoch", "epochs_run", *config.space, "train_seconds")
        table = tables.select_columns(table, [name for name in main if name in table.columns])
    if output:
        tables.write_table(table, output)
        say(f"wrote {len(table)} trials to {output}")
    else:
        _print_table(table, format)


def _print_table(table: Any, format: str) -> None:
    from analysis.trials import to_csv, to_json_rows, to_parquet

    match format:
        case "json":
            text = json.dumps(to_json_rows(table), indent=1, ensure_ascii=False, allow_nan=False)
            sys.stdout.write(f"{text}\n")
        case "csv":
            sys.stdout.write(to_csv(table))
        case "table":
            console.show_rows(list(table.columns), to_json_rows(table))
        case "parquet" if sys.stdout.isatty():
            raise ConfigurationError("--format parquet: is binary, and not for a screen: add --output trials.parquet")
        case "parquet":
            sys.stdout.buffer.write(to_parquet(table))

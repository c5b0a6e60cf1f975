"""Commands that say what came out of a search; they read the ledger and nothing else."""

import json
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from search import console
from search.commands.arguments import SEARCH, Run, complete_runs
from search.commands.final_stage import report_on
from search.config import StudyConfig
from search.console import complain, near, say
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


@app.command(rich_help_panel=SEARCH, epilog="Example: thawline report RUN --open")
def report(
    run: Run,
    output: Annotated[
        Path | None, typer.Option(metavar="FILE", help="File to write; default: report.html in the run.")
    ] = None,
    show: Annotated[bool, typer.Option("--open", help="Show it in a browser.")] = False,
) -> None:
    """Write one offline HTML file: the best configuration, how sure it is, and everything behind it. Works while the
    search runs, too.
    """
    path = report_on(find_run(run), output)
    say(f"wrote {near(path)}")
    if show:
        typer.launch(path.absolute().as_uri())


@app.command(rich_help_panel=SEARCH, epilog="Example: thawline compare runs/first runs/second")
def compare(
    runs: Annotated[
        list[str],
        typer.Argument(metavar="RUN RUN...", help="Two runs or more.", autocompletion=complete_runs),
    ],
    output: Annotated[Path, typer.Option(metavar="FILE", help="HTML file to write.")] = Path("comparison.html"),
) -> None:
    """Put runs side by side: what each found, what it took, in what they differ; and one HTML report over them."""
    from analysis.report import write_comparison
    from analysis.report.run import read_run
    from analysis.report.side_by_side import contrast_runs, rows_side_by_side

    _check_several(runs)
    studies = [read_run(run, {}) for run in runs]
    found = contrast_runs(studies)
    for warning in found.warnings:
        complain("warning", warning)
    columns = ["", *(outcome.name for outcome in found.outcomes)]
    rows = rows_side_by_side(found) + [[name, *map(_setting, values)] for name, values in found.differing.items()]
    console.show_rows(columns, (dict(zip(columns, row, strict=True)) for row in rows))
    say(f"wrote {near(write_comparison(studies, output))}")


def _check_several(runs: list[str]) -> None:
    """Problems of all runs at once."""
    problems = [] if len(runs) > 1 else [f"a comparison needs two runs or more, but got {len(runs)}"]
    found = []
    for run in runs:
        try:
            root = find_run(run).root
        except ConfigurationError as error:
            problems += error.problems
            continue
        if root in found:
            problems.append(f"{run}: a comparison needs different runs, but this one was named before")
        found.append(root)
    if problems:
        raise ConfigurationError(problems)


def _setting(value: Any) -> str:
    return "" if value is None else str(value)


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

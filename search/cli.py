"""`thawline …`: one short function per command; with `final_stage.py` the only module that sees all three packages.

Imports what a command needs when it runs, so that `--help` is instant.
"""

import json
import os
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from search import console
from search.config import StudyConfig
from search.console import complain, near, say, show_best, show_data_check, show_final, show_state
from search.errors import ConfigurationError, LedgerError, StudyStopped
from search.final_stage import (
    choose_finalists,
    exported,
    finish,
    model_folder,
    name_winner,
    open_test_set,
    retrain_exported,
    retrain_file,
    use_this_machine,
)
from search.paths import find_run, shipped_study
from trainable import ImageTrainable, InputError, TrialError

if TYPE_CHECKING:
    from search.driver import Session
    from search.progress import View

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="How should this pre-trained network be fine-tuned on these images?",
    epilog="A study is one file, a run its folder under runs/. First steps: thawline init, thawline data check DIR, "
    "thawline search study.yaml --final. Or, without images: thawline quickstart.",
)
data_app = typer.Typer(no_args_is_help=True, help="Look at images before they are used.")
START, SEARCH, MODEL = "Before a search", "The search", "The model"


def _runs(incomplete: str) -> list[str]:
    return [path.parent.name for path in Path("runs").glob("*/study.yaml") if path.parent.name.startswith(incomplete)]


def _studies(incomplete: str) -> list[str]:
    path = Path(f"{incomplete}*")
    return [*(str(file) for file in path.parent.glob(path.name) if file.suffix == ".yaml"), *_runs(incomplete)]


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        say(f"thawline {version('thawline')}")
        raise typer.Exit


Settings = Annotated[
    list[str], typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Override the study file; may be repeated.")
]
Quiet = Annotated[bool, typer.Option("--quiet", help="Show nothing while it runs.")]
Run = Annotated[str, typer.Argument(metavar="RUN", help="A run folder, or its name under runs/.", autocompletion=_runs)]
Version = Annotated[
    bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
]


def main() -> None:
    """Entry point: exit code 0 means that everything promised was produced, 2 that nothing was started."""
    for stream in (sys.stdout, sys.stderr):  # file names may hold what the terminal's encoding lacks
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    sys.exit(_exit_code())


def _exit_code() -> int:
    from search.interruption import Interrupted, interruptible

    try:
        with interruptible():
            code = app(standalone_mode=False) or 0
            sys.stdout.flush()
        return int(code)
    except (ConfigurationError, InputError) as error:
        for problem in error.problems:
            complain("error", problem)
        return 2
    except (StudyStopped, LedgerError, TrialError) as error:
        complain("stopped", error)
        return 1
    except Interrupted as interruption:
        complain("interrupted", f"{interruption}; what is recorded is safe, the same command goes on from it")
        return interruption.exit_code
    except BrokenPipeError:  # `thawline trials RUN | head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as error:
        if error.strerror is None:
            raise
        complain("stopped", f"{error.filename}: {error.strerror}" if error.filename else error.strerror)
        return 1
    except Exception as error:
        if hasattr(error, "exit_code") and hasattr(error, "show"):  # click's own usage errors
            error.show()
            return int(error.exit_code)
        raise


@app.callback()
def thawline(version: Version = False) -> None:
    """Options of the program itself."""


@app.command(rich_help_panel=START)
def init(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="Study file to write.")] = Path("study.yaml"),
) -> None:
    """Write a commented starter study file, and the JSON schema that editors complete from."""
    schema = path.with_suffix(".schema.json")
    if path.suffix not in (".yaml", ".yml"):
        raise ConfigurationError(f"{path}: must end in .yaml, so that `thawline search` and editors know what it is")
    there = [
        f"{target}: must not exist yet; give another name or move it away"
        for target in (path, schema)
        if target.exists()
    ]
    if there:
        raise ConfigurationError(there)
    path.parent.mkdir(parents=True, exist_ok=True)
    starter = shipped_study("starter").read_text(encoding="utf-8")
    path.write_text(f"# yaml-language-server: $schema={schema.name}\n{starter}", encoding="utf-8")
    described = StudyConfig.of(ImageTrainable.sections).model_json_schema()
    schema.write_text(json.dumps(described, indent=1), encoding="utf-8")
    say(f"wrote {path}, and {schema} that editors complete from; set `data.path` in it, then: thawline search {path}")


@data_app.command("check", epilog="Example: thawline data check images --set groups=groups.csv")
def data_check(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder with one sub-folder per class.")],
    settings: Annotated[
        list[str],
        typer.Option(
            "--set", metavar="KEY=VALUE", help="Setting of the section `data`, as in a study file; may be repeated."
        ),
    ] = [],  # noqa: B006 - Typer reads defaults from here
    seed: Annotated[int, typer.Option(help="Seed of the planned split: the study's.")] = 0,
) -> None:
    """Counts, sizes, modes, unreadable files, duplicates, leaks; exit code 0 says that a search may start."""
    from trainable.data_check import check_data
    from trainable.inspection import inspect_images
    from trainable.settings import DataSettings

    sections = {"data": DataSettings}
    overrides = [text if text.startswith("data.") else f"data.{text}" for text in settings]
    config = StudyConfig.of(sections).parse({"data": {"path": str(folder)}}, overrides)
    with _view(quiet=False) as view:
        inspection = inspect_images(config.data, lambda done, of: view.preparing("checking images", done, of))
    check = check_data(inspection, config.data, seed)
    show_data_check(check)
    if check.problems:
        raise InputError(list(check.problems))


app.add_typer(data_app, name="data", rich_help_panel=START)


@app.command(
    rich_help_panel=SEARCH,
    epilog="Examples: thawline search study.yaml --set data.image_size=96 --final. "
    "A search that was interrupted, or that shall try more: thawline search RUN --trials 50.",
)
def search(
    study: Annotated[
        str, typer.Argument(metavar="STUDY", help="A study file, or a run to go on with.", autocompletion=_studies)
    ],
    name: Annotated[str | None, typer.Option(help="Name of the run; default: the study file's.")] = None,
    trials: Annotated[int | None, typer.Option(help="Configurations to try; more than before extends a study.")] = None,
    time_budget: Annotated[
        str | None, typer.Option(metavar="TIME", help="For the search, all its sessions together: 90s, 30m, 1h30m.")
    ] = None,
    address: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="Ray cluster: auto or host:port; default: one started here.")
    ] = None,
    settings: Settings = [],  # noqa: B006
    final: Annotated[bool, typer.Option("--final", help="Go on: rerun finalists, export, retrain, evaluate.")] = False,
    quiet: Quiet = False,
) -> None:
    """Search, or go on with a search that was interrupted."""
    given: dict[str, Any] = {"name": name, "budget.trials": trials, "resources.address": address}
    given["budget.wall_seconds"] = None if time_budget is None else _seconds(time_budget)
    overrides = [*settings, *(f"{key}={json.dumps(value)}" for key, value in given.items() if value is not None)]
    config: Any = _load(study, overrides)
    if final and config.data.split_file is None and config.data.split.test == 0:
        raise ConfigurationError("data.split.test: must be above 0 for --final, which evaluates on the test part")
    with _session(config, quiet) as session:
        session.search(choose_finalists(session) if final else None)
        if final:
            finish(session)
    show_best(session.paths)
    if final:
        show_final(session.paths)
    else:
        say(f"next: thawline retrain {near(session.paths.root)}")


@app.command(rich_help_panel=SEARCH)
def status(run: Run) -> None:
    """How far a run is, what it has used, whether somebody works on it; reads only what is on disk."""
    from search.ledger import read_history
    from search.lock import driver_at_work
    from search.progress import study_screen

    paths = find_run(run)
    config, history = StudyConfig.load(paths.study_file), read_history(paths.ledger)
    driver = driver_at_work(paths.lock)
    for part in study_screen(config, history, at_work=driver is not None):
        console.out.print(part)
    show_state(paths, config, history, driver)


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


@app.command(rich_help_panel=SEARCH)
def export(
    run: Run,
    trial: Annotated[
        int | None, typer.Option(help="Number of a trial; default: the winner, or the best so far.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="File to write; default: best.yaml, or trial_NUMBER.yaml, in the run."),
    ] = None,
) -> None:
    """Write a configuration as a study file that `retrain` and `search` take unchanged."""
    from analysis.export import export_trial

    path = export_trial(str(find_run(run).root), trial, output)
    say(f"wrote {near(path)}")


@app.command(rich_help_panel=MODEL)
def retrain(
    source: Annotated[
        str,
        typer.Argument(metavar="RUN|FILE", help="A run, or an exported configuration.", autocompletion=_studies),
    ],
    quiet: Quiet = False,
) -> None:
    """Train the winner on train + validation and save final/model.keras. Given a run, rerun its finalists first and
    name the winner.
    """
    if source.endswith((".yaml", ".yml")):
        say(f"wrote {near(retrain_file(Path(source), _view(quiet)))}")
        return
    with _session(_load(source, []), quiet) as session:
        session.rerun(choose_finalists(session)(session.history))
        name_winner(session)
        retrain_exported(session.paths.best, session.paths.root, session.view)
    root = near(session.paths.root)
    say(f"wrote {near(session.paths.final)}; next: thawline evaluate {root}, or thawline predict {root} IMAGES")


@app.command(rich_help_panel=MODEL)
def evaluate(run: Run, quiet: Quiet = False) -> None:
    """Open the locked test set, score final/model.keras on it, draw the figures, write the model card."""
    from search.ledger import Ledger
    from search.lock import exclusive

    paths = find_run(run)
    exported(paths)  # without it nothing is opened, the ledger included
    with exclusive(paths.lock), Ledger(paths.ledger) as ledger, _view(quiet) as view:
        ledger.listeners.append(view.happened)
        open_test_set(paths, ledger, view)
    show_final(paths)


@app.command(rich_help_panel=MODEL, epilog="Example: thawline predict RUN new_images --output predictions.csv")
def predict(
    model: Annotated[
        str, typer.Argument(metavar="RUN|MODEL", help="A run, or the path of a model.keras.", autocompletion=_runs)
    ],
    images: Annotated[list[Path], typer.Argument(metavar="IMAGES...", help="Images, or folders of images.")],
    output: Annotated[Path | None, typer.Option(metavar="FILE", help="CSV file; default: standard output.")] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Images at a time.")] = 64,
) -> None:
    """Classes and probabilities of new images, as CSV."""
    import csv

    from trainable.predict import Classifier, columns, find_images, predict_files

    folder = model_folder(model)
    files = find_images(images)
    use_this_machine(gpus=0)
    classifier = Classifier.load(folder)
    failed = 0
    with _csv_target(output) as stream, _view(quiet=output is None) as view:
        writer = csv.DictWriter(stream, columns(classifier))
        writer.writeheader()
        for row in predict_files(classifier, files, lambda d, of: view.preparing("predicting", d, of), batch_size):
            writer.writerow(row)
            failed += bool(row["error"])
    if output:
        say(f"wrote {len(files)} rows to {output}")
    if failed:
        raise StudyStopped(f"{failed} of {len(files)} images could not be read; the column `error` says why")


@app.command()
def quickstart(
    name: Annotated[str, typer.Option(help="Name of the run.")] = "quickstart",
    quiet: Quiet = False,
) -> None:
    """A whole small study on images that Thawline draws itself: search, retrain, evaluate."""
    from trainable.synthetic import draw_study

    images = Path("runs/quickstart-images")
    if not (images / "groups.csv").exists():
        shutil.rmtree(images, ignore_errors=True)
        draw_study(images, images_per_class=200, image_size=64, seed=1)
    config = _load(str(shipped_study("quickstart")), [f"name={name}"])
    with _session(config, quiet) as session:
        session.search(choose_finalists(session))
        finish(session)
    show_best(session.paths)
    show_final(session.paths)


def _load(study: str, overrides: list[str]) -> StudyConfig:
    """A study file, or the configuration of a run."""
    path = Path(study)
    if path.is_file():
        return StudyConfig.load(path, overrides, ImageTrainable.sections)
    try:
        run = find_run(study)
    except ConfigurationError as error:
        raise ConfigurationError(
            f"{study}: must be a study file or a run, but there is no such file, and as a run: {error.problems[0]}"
        ) from error
    placed = [f"name={run.root.name}", f"storage={run.root.parent}"]
    return StudyConfig.load(run.study_file, [*placed, *overrides], ImageTrainable.sections)


@contextmanager
def _session(config: StudyConfig, quiet: bool) -> "Iterator[Session]":
    from search.driver import Session

    with Session(config, ImageTrainable(), _view(quiet)) as session:
        yield session


def _view(quiet: bool) -> "View":
    from search.progress import Lines, Screen, View

    if quiet:
        return View()
    return Screen() if console.err.is_terminal else Lines()


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


@contextmanager
def _csv_target(path: Path | None) -> Iterator[Any]:
    from trainable.whole_file import whole_file

    if path is None:
        yield sys.stdout
        return
    with whole_file(path) as temporary, temporary.open("w", encoding="utf-8", errors="backslashreplace") as stream:
        yield stream


def _seconds(text: str) -> float:
    """`90s`, `30m`, `1h30m` or a number of seconds."""
    parts = re.fullmatch(r"(?:([\d.]+)h)?(?:([\d.]+)m)?(?:([\d.]+)s?)?", text)
    try:
        if parts and any(parts.groups()):
            return sum(float(part or 0) * unit for part, unit in zip(parts.groups(), (3600, 60, 1), strict=True))
    except ValueError:  # 1.2.3
        pass
    raise ConfigurationError(f"--time-budget: must read 90s, 30m or 1h30m, but got {text!r}")


if __name__ == "__main__":
    main()

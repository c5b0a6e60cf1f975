"""`thawline …`: one short function per command. The only module that sees all three packages; imports what a command
needs when it runs, so that `--help` is instant.
"""

import json
import math
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from search import console
from search.config import StudyConfig
from search.console import complain, say, show_best, show_data_check, show_final
from search.errors import ConfigurationError, LedgerError, StudyStopped
from search.paths import StudyPaths, find_run, shipped_study
from trainable import ImageTrainable, InputError, TrialError

if TYPE_CHECKING:
    from search.driver import Session
    from search.history import History
    from search.progress import View

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="How should this pre-trained network be fine-tuned on these images?",
    epilog="A study is one file; a run is its folder under runs/. Everything a run says is read from its ledger.",
)
data_app = typer.Typer(no_args_is_help=True, help="Look at images before they are used.")
app.add_typer(data_app, name="data")

Settings = Annotated[list[str], typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Override the study file.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="Show nothing while it runs.")]
Run = Annotated[str, typer.Argument(metavar="RUN", help="A run folder, or its name under runs/.")]


def main() -> None:
    """Entry point: exit code 0 means that everything promised was produced, 2 that nothing was started."""
    sys.exit(_exit_code())


def _exit_code() -> int:
    from search.interruption import Interrupted

    try:
        return app(standalone_mode=False) or 0
    except (ConfigurationError, InputError) as error:
        for problem in error.problems:
            complain("error", problem)
        return 2
    except (StudyStopped, LedgerError, TrialError) as error:
        complain("stopped", error)
        return 1
    except Interrupted as interruption:
        complain("interrupted", f"{interruption}; the same command goes on where this left off")
        return interruption.exit_code
    except typer.Abort:
        return 130
    except Exception as error:
        if hasattr(error, "exit_code") and hasattr(error, "show"):  # click's own usage errors
            error.show()
            return int(error.exit_code)
        raise


@app.command()
def init(
    path: Annotated[Path, typer.Argument(help="Study file to write.")] = Path("study.yaml"),
) -> None:
    """Write a commented starter study file, and the JSON schema that editors complete from."""
    schema = path.with_suffix(".schema.json")
    for target in (path, schema):
        if target.exists():
            raise ConfigurationError(f"{target}: must not exist yet; give another name or move it away")
    path.parent.mkdir(parents=True, exist_ok=True)
    starter = shipped_study("starter").read_text(encoding="utf-8")
    path.write_text(f"# yaml-language-server: $schema={schema.name}\n{starter}", encoding="utf-8")
    schema.write_text(
        json.dumps(StudyConfig.of(ImageTrainable.sections).model_json_schema(), indent=1), encoding="utf-8"
    )
    say(f"wrote {path} and {schema}; give it your images, then: thawline search {path}")


@data_app.command("check")
def data_check(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder with one sub-folder per class.")],
    settings: Settings = [],  # noqa: B006 - Typer reads defaults from here
    seed: Annotated[int, typer.Option(help="Seed of the planned split.")] = 0,
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


@app.command()
def search(
    study: Annotated[str, typer.Argument(metavar="STUDY", help="A study file, or a run to go on with.")],
    name: Annotated[str | None, typer.Option(help="Name of the run; default: the study file's.")] = None,
    trials: Annotated[int | None, typer.Option(help="Configurations to try; more than before extends a study.")] = None,
    time_budget: Annotated[str | None, typer.Option(help="Time for the search: 90s, 30m, 2h.")] = None,
    address: Annotated[str | None, typer.Option(help="Ray cluster: auto or host:port.")] = None,
    settings: Settings = [],  # noqa: B006
    final: Annotated[bool, typer.Option("--final", help="Go on: rerun finalists, export, retrain, evaluate.")] = False,
    quiet: Quiet = False,
) -> None:
    """Search, or go on with a search that was interrupted."""
    given: dict[str, Any] = {"name": name, "budget.trials": trials, "resources.address": address}
    given["budget.wall_seconds"] = None if time_budget is None else _seconds(time_budget)
    overrides = [*settings, *(f"{key}={value}" for key, value in given.items() if value is not None)]
    config = _load(study, overrides)
    with _session(config, quiet) as session:
        session.search(_choose_finalists(session) if final else None)
        if final:
            _finish(session)
    show_best(session.paths)
    if final:
        show_final(session.paths)


@app.command()
def status(run: Run) -> None:
    """How far a run is; reads only its ledger."""
    from search.ledger import read_history
    from search.progress import study_screen

    paths = find_run(run)
    for part in study_screen(StudyConfig.load(paths.study_file), read_history(paths.ledger)):
        console.out.print(part)


@app.command()
def trials(
    run: Run,
    format: Annotated[str, typer.Option(help="table, csv, json or parquet.")] = "table",
    sort: Annotated[str | None, typer.Option(help="Column to sort by.")] = None,
    ascending: Annotated[bool, typer.Option("--ascending", help="Smallest first.")] = False,
    filter: Annotated[list[str], typer.Option(help="Such as status=completed or freeze_depth>=3; all must hold.")] = [],  # noqa: B006
    top: Annotated[int | None, typer.Option(help="Only the best so many.")] = None,
    columns: Annotated[str | None, typer.Option(help="Comma-separated columns.")] = None,
    reruns: Annotated[bool, typer.Option("--reruns", help="The finalists' reruns instead.")] = False,
    output: Annotated[Path | None, typer.Option(help="File to write; its ending decides the format.")] = None,
) -> None:
    """The trial table: one row per trial (docs/trial_table.md)."""
    from analysis import trials as tables

    paths = find_run(run)
    objective = StudyConfig.load(paths.study_file).objective
    table = tables.read_reruns(paths.root) if reruns else tables.read_trials(paths.root)
    table = tables.filter_trials(table, filter)
    if sort:
        table = tables.sort_trials(table, sort, descending=not ascending)
    if top is not None:
        table = tables.top(table, top, objective.direction)
    if columns:
        table = tables.select_columns(table, [name.strip() for name in columns.split(",")])
    if output:
        tables.write_table(table, output)
        say(f"wrote {len(table)} trials to {output}")
    else:
        _print_table(table, format)


@app.command()
def export(
    run: Run,
    trial: Annotated[int | None, typer.Option(help="Number of a trial; default: the winner, or the best.")] = None,
    output: Annotated[Path | None, typer.Option(help="File to write; default: best.yaml in the run.")] = None,
) -> None:
    """Write the best configuration as a study file that `retrain` takes unchanged."""
    from analysis.export import export_trial

    path = export_trial(str(find_run(run).root), trial, output)
    say(f"wrote {path}")


@app.command()
def retrain(
    source: Annotated[str, typer.Argument(metavar="RUN|best.yaml", help="A run, or an exported configuration.")],
    quiet: Quiet = False,
) -> None:
    """Rerun the finalists (of a run), train the winner on train + validation, save final/model.keras."""
    if source.endswith((".yaml", ".yml")):
        path = Path(source)
        with _view(quiet) as view:
            _retrain(path, path.absolute().parent, view)
        say(f"wrote {path.absolute().parent / 'final'}")
        return
    with _session(_load(source, []), quiet) as session:
        session.rerun(_choose_finalists(session)(session.history))
        _name_winner(session)
        _retrain(session.paths.best, session.paths.root, session.view)
    say(f"wrote {session.paths.final}")


@app.command()
def evaluate(run: Run, quiet: Quiet = False) -> None:
    """Open the locked test set, score final/model.keras on it, draw the figures, write the model card."""
    from search.ledger import Ledger
    from search.lock import exclusive

    paths = find_run(run)
    with exclusive(paths.lock), Ledger(paths.ledger) as ledger, _view(quiet) as view:
        _evaluate(paths, ledger, view)
    show_final(paths)


@app.command()
def predict(
    model: Annotated[str, typer.Argument(metavar="RUN|MODEL", help="A run, or the path of a model.keras.")],
    images: Annotated[list[Path], typer.Argument(help="Images, or folders of images.")],
    output: Annotated[Path | None, typer.Option(help="CSV file; default: standard output.")] = None,
    batch_size: Annotated[int, typer.Option(help="Images at a time.")] = 64,
) -> None:
    """Classes and probabilities of new images, as CSV."""
    import csv

    from trainable.predict import Classifier, columns, find_images, predict_files

    path = Path(model) if Path(model).suffix == ".keras" else find_run(model).final
    files = find_images(images)
    _use_this_machine(gpus=0)
    classifier = Classifier.load(path)
    failed = 0
    with _csv_target(output) as stream, _view(quiet=output is None) as view:
        writer = csv.DictWriter(stream, columns(classifier))
        writer.writeheader()
        for row in predict_files(classifier, files, lambda d, of: view.preparing("predicting", d, of), batch_size):
            writer.writerow(row)
            failed += bool(row["error"])
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
        session.search(_choose_finalists(session))
        _finish(session)
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
def _session(config: StudyConfig, quiet: bool) -> Iterator["Session"]:
    from search.driver import Session

    with Session(config, ImageTrainable(), _view(quiet)) as session:
        yield session


def _view(quiet: bool) -> "View":
    from search.progress import Lines, Screen, View

    if quiet:
        return View()
    return Screen() if console.err.is_terminal else Lines()


def _finish(session: "Session") -> None:
    _name_winner(session)
    _retrain(session.paths.best, session.paths.root, session.view)
    _evaluate(session.paths, session.ledger, session.view)


def _choose_finalists(session: "Session") -> "Callable[[History], list[int]]":
    from analysis.selection import finalists

    config = session.config

    def choose(history: "History") -> list[int]:
        best = finalists(history.search_trials(), config.objective, config.final.finalists)
        return [trial.number for trial in best]

    return choose


def _name_winner(session: "Session") -> None:
    """Choose among the finalists by their reruns, write best.yaml."""
    from analysis.export import export_trial
    from analysis.selection import choose_winner

    winner = choose_winner(session.history, session.config)
    session.note("winner", asdict(winner))
    session.view.say(winner.reason)
    export_trial(str(session.paths.root), None, None)


def _retrain(best: Path, folder: Path, view: "View") -> None:
    """Train what an exported configuration says into `folder/final`."""
    from search.sampling import derive_seed
    from trainable.retrain import Recipe, retrain

    config: Any = StudyConfig.load(best, (), ImageTrainable.sections)
    trial = (config.record or {}).get("trial", {})
    prepared = ImageTrainable().prepare(config, {}, folder, view.preparing)
    _same_images(config, prepared)
    _use_this_machine(config.resources.gpus_per_trial)
    recipe = Recipe(
        model=config.model,
        hyperparameters=config.training,
        epochs=trial.get("best_epoch") or config.budget.epochs,
        learning_rates=trial.get("learning_rates", []),
        seed=derive_seed(config.seed, "final"),
        view_seed=config.seed,
        positive=prepared.context["positive"],
        colour=config.data.colour,
    )
    retrain(recipe, folder / "arrays", folder / "final", view.preparing)


def _evaluate(paths: StudyPaths, ledger: Any, view: "View") -> None:
    from analysis.figures import draw_evaluation
    from analysis.model_card import write_model_card
    from search.events import Noted
    from trainable.evaluate import evaluate

    config: Any = StudyConfig.load(paths.best, (), ImageTrainable.sections)
    opened = 1 + sum(note.topic == "test_opened" for note in ledger.history.notes)
    at = datetime.now(UTC).isoformat(timespec="seconds")
    _use_this_machine(config.resources.gpus_per_trial)
    ledger.append(Noted("test_opened", {"at": at, "times": opened}))
    facts = {"study": paths.root.name, "test_opened": {"at": at, "times": opened}, "trial": config.record["trial"]}
    evaluate(config.data, paths.root, facts, config.seed, view.preparing)
    draw_evaluation(paths.final)
    write_model_card(paths.final, _card_facts(paths, config))


def _card_facts(paths: StudyPaths, config: Any) -> dict[str, Any]:
    record = config.record
    groups = config.data.groups if isinstance(config.data.groups, str) else "given with the images"
    return {
        "study": paths.root.name,
        "data": {
            "fingerprint": record["data"]["fingerprint"],
            "groups": groups,
            "image_size": config.data.image_size,
            "colour": config.data.colour,
        },
        "model": {**config.model.model_dump(mode="json"), "weights_sha256": record.get("weights_sha256")},
        "training": {"epochs": record["trial"]["best_epoch"], "seed": config.seed},
        "versions": record["versions"],
    }


def _same_images(config: StudyConfig, prepared: Any) -> None:
    wanted = (config.record or {}).get("data", {}).get("fingerprint")
    came = prepared.record["data"]["fingerprint"]
    if wanted and wanted != came:
        raise ConfigurationError(
            f"data: the configuration was found on images with fingerprint {wanted}, but these have {came}"
        )


def _use_this_machine(gpus: float) -> None:
    """TensorFlow with all cores, and one GPU where trials used any."""
    from trainable.devices import apply_devices, plan_devices, visible_gpus

    with suppress(RuntimeError):  # it runs already, with these settings
        apply_devices(plan_devices(os.cpu_count() or 1, min(1, math.ceil(gpus)), visible_gpus()))


def _print_table(table: Any, format: str) -> None:
    from analysis.trials import to_csv, to_json_rows

    match format:
        case "json":
            text = json.dumps(to_json_rows(table), indent=1, ensure_ascii=False, allow_nan=False)
            sys.stdout.write(f"{text}\n")
        case "csv":
            sys.stdout.write(to_csv(table))
        case "table":
            console.show_rows(list(table.columns), to_json_rows(table))
        case "parquet":
            raise ConfigurationError("--format parquet: is binary, so it needs a file: --output trials.parquet")
        case other:
            raise ConfigurationError(f"--format: must be table, csv, json or parquet, but got {other!r}")


@contextmanager
def _csv_target(path: Path | None) -> Iterator[Any]:
    if path is None:
        yield sys.stdout
        return
    with path.open("w", encoding="utf-8", newline="") as stream:
        yield stream
    say(f"wrote {path}")


def _seconds(text: str) -> float:
    """`90s`, `30m`, `2h` or a number of seconds."""
    unit = {"s": 1, "m": 60, "h": 3600}.get(text[-1:])
    try:
        return float(text[:-1]) * unit if unit else float(text)
    except ValueError:
        raise ConfigurationError(f"--time-budget: must read 90s, 30m or 2h, but got {text!r}") from None


if __name__ == "__main__":
    main()

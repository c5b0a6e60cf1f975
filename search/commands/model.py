"""Commands that make, judge and use the final model."""

import csv
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Annotated, Any, Literal, TextIO

import typer

from search import console
from search.commands.arguments import (
    MODEL,
    Quiet,
    Run,
    complete_runs,
    complete_studies,
    load_study,
    make_view,
    open_session,
)
from search.commands.final_stage import (
    choose_finalists,
    exported,
    model_folder,
    name_winner,
    open_test_set,
    trained_otherwise,
)
from search.commands.final_training import retrain_exported, retrain_file, use_this_machine
from search.config import StudyConfig
from search.console import near, say, show_final
from search.errors import ConfigurationError, StudyStopped
from search.paths import check_private, find_run

app = typer.Typer()


@app.command(rich_help_panel=MODEL)
def retrain(
    source: Annotated[
        str,
        typer.Argument(
            metavar="RUN|FILE", help="A run, or an exported configuration.", autocompletion=complete_studies
        ),
    ],
    quiet: Quiet = False,
) -> None:
    """Train the winner on train + validation and save final/model.keras. Given a run, rerun its finalists first and
    name the winner.
    """
    if source.endswith((".yaml", ".yml")):
        say(f"wrote {near(retrain_file(Path(source), make_view(quiet)))}")
        return
    with open_session(load_study(source, []), quiet) as session:
        session.rerun(choose_finalists(session)(session.history))
        name_winner(session)
        retrain_exported(session.paths.best, session.paths, session.view, on_cluster=True)
    root = near(session.paths.root)
    say(f"wrote {near(session.paths.final)}; next: thawline evaluate {root}, or thawline predict {root} IMAGES")


@app.command(rich_help_panel=MODEL)
def evaluate(run: Run, quiet: Quiet = False) -> None:
    """Open the locked test set, score final/model.keras on it, draw the figures, write the model card."""
    from search.ledger import Ledger
    from search.lock import exclusive
    from search.opening import earlier_study
    from search.storage_copy import copied, copy_of

    paths = find_run(run)
    check_private(paths)
    exported(paths)  # without it nothing is opened, the ledger included
    earlier_study(paths, {})  # a ledger that is lost is not begun anew: it counts how often the test set was opened
    place = copy_of(paths, StudyConfig.load(paths.study_file).storage_copy)
    with exclusive(paths.lock), Ledger(paths.ledger) as ledger, make_view(quiet) as view:
        ledger.listeners.append(view.happened)
        with copied(ledger, paths, place, view.say) if place else nullcontext():
            open_test_set(paths, ledger, view)
    show_final(paths)


@app.command(
    rich_help_panel=MODEL,
    epilog="Examples: thawline export RUN --format onnx; thawline export RUN --trial 7 --output seven.yaml",
)
def export(
    run: Annotated[
        str,
        typer.Argument(
            metavar="RUN|MODEL", help="A run; or, not for yaml, a model.keras.", autocompletion=complete_runs
        ),
    ],
    format: Annotated[
        Literal["yaml", "keras", "savedmodel", "tflite", "onnx"],
        typer.Option(help="yaml: the configuration, as a study file. Others: the trained model."),
    ] = "yaml",
    trial: Annotated[
        int | None, typer.Option(help="With yaml: number of a trial; default: the winner, or the best so far.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH",
            help="What to write; default: best.yaml or trial_NUMBER.yaml in the run, or a file in its folder exported.",
        ),
    ] = None,
) -> None:
    """Write the best configuration, which `retrain` and `search` take unchanged; or the trained model in a format that
    other programs run, compared with the original on validation images.
    """
    if format == "yaml":
        from analysis.export import export_trial

        paths = find_run(run)
        say(f"wrote {near(export_trial(str(paths.root), trial, output))}")
        if (trial, output) == (None, None) and trained_otherwise(exported(paths), paths.final):
            say(f"{near(paths.final)} has another model; `thawline retrain {near(paths.root)}` trains this one")
    elif trial is not None:
        raise ConfigurationError(f"--trial: goes with --format yaml, but got {format}: only the winner has a model")
    else:
        _export_model(run, format, output)


def _export_model(model: str, name: str, output: Path | None) -> None:
    from trainable.deployment import FORMATS, check_request, deploy

    final, format = model_folder(model), FORMATS[name]
    run_folder = (final if final.is_dir() else final.parent).parent
    target = output or run_folder / "exported" / format.default_name
    check_request(format, target)
    use_this_machine(gpus=0)
    done = deploy(final, format, target, run_folder)
    say(f"wrote {near(done.path)}, and {near(done.description)} that says how to use it")
    say(
        f"same probabilities as model.keras on {done.images} {done.source}: largest difference {done.distance:.1e}, "
        f"allowed {done.tolerance:.0e}"
    )


@app.command(
    rich_help_panel=MODEL,
    epilog="Examples: thawline predict RUN new_images --output predictions.csv; "
    "thawline predict RUN new_images --explain heat --class lesion",
)
def predict(
    model: Annotated[
        str,
        typer.Argument(metavar="RUN|MODEL", help="A run, or the path of a model.keras.", autocompletion=complete_runs),
    ],
    images: Annotated[list[Path], typer.Argument(metavar="IMAGES...", help="Images, or folders of images.")],
    output: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A .csv or .json file; default: standard output.")
    ] = None,
    format: Annotated[
        Literal["csv", "json"] | None, typer.Option(help="Default: as the ending of --output says, else csv.")
    ] = None,
    explain: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Also draw where the model saw reasons for the class (Grad-CAM).")
    ] = None,
    class_name: Annotated[
        str | None, typer.Option("--class", metavar="NAME", help="Class to explain; default: the predicted one.")
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Images at a time.")] = 64,
) -> None:
    """Classes and probabilities of new images, as CSV or JSON; heat maps if wanted."""
    from trainable.predict import Classifier, columns, find_images, predict_files

    written = _prediction_format(output, format)
    if class_name is not None and explain is None:
        raise ConfigurationError("--class: says which class to explain, so --explain DIR must be given too")
    folder, files = model_folder(model), find_images(images)
    use_this_machine(gpus=0)
    classifier = Classifier.load(folder)
    overlays = _overlays(classifier, explain, class_name) if explain else None
    failed = 0
    with _rows_target(output, written, columns(classifier)) as add, make_view(quiet=output is None) as view:
        tell = lambda done, of: view.preparing("predicting", done, of)  # noqa: E731
        for row in predict_files(classifier, files, tell, batch_size, overlays.add if overlays else None):
            add(row)
            failed += bool(row["error"])
    if output:
        say(f"wrote {len(files)} rows to {output}")
    if overlays:
        pictures = overlays.finish()
        console.err.print(f"wrote {pictures} heat maps to {explain}, listed in its index.csv", markup=False)
    if failed:
        raise StudyStopped(f"{failed} of {len(files)} images could not be read; the column `error` says why")


def _prediction_format(output: Path | None, format: str | None) -> str:
    ending = output.suffix.lower().removeprefix(".") if output else ""
    if format and ending in ("csv", "json") and ending != format:
        raise ConfigurationError(f"--output {output}: must end in .{format} for --format {format}")
    return format or ("json" if ending == "json" else "csv")


def _overlays(classifier: Any, folder: Path, class_name: str | None) -> Any:
    from trainable.explanation import Overlays

    return Overlays(classifier, folder, class_name)


@contextmanager
def _rows_target(path: Path | None, format: str, columns: list[str]) -> Iterator[Callable[[dict[str, Any]], Any]]:
    """What takes row after row, to standard output or to a file that is whole or absent."""
    from trainable.whole_file import whole_file

    if path is None:
        with _row_writer(sys.stdout, format, columns) as add:
            yield add
        return
    with (
        whole_file(path) as temporary,
        temporary.open("w", encoding="utf-8", newline="") as stream,
        _row_writer(stream, format, columns) as add,
    ):
        yield add


@contextmanager
def _row_writer(stream: TextIO, format: str, columns: list[str]) -> Iterator[Callable[[dict[str, Any]], Any]]:
    from trainable.whole_file import guarded

    if format == "csv":
        writer = csv.DictWriter(stream, columns)
        writer.writeheader()
        yield lambda row: writer.writerow({name: guarded(cell) for name, cell in row.items()})
        return
    rows: list[dict[str, Any]] = []
    yield rows.append
    known = [{name: None if value == "" else value for name, value in row.items()} for row in rows]
    stream.write(json.dumps(known, indent=1, ensure_ascii=False) + "\n")

"""Commands before a search: a study file to begin with, a look at the images, a whole study without any."""

import json
import shutil
from pathlib import Path
from typing import Annotated

import typer

from search.commands.arguments import START, AsJson, Quiet, load_study, make_view, open_session
from search.commands.final_stage import choose_finalists, finish
from search.config import StudyConfig
from search.console import say, show_best, show_data_check, show_final
from search.errors import ConfigurationError
from search.paths import shipped_study
from trainable import ImageTrainable, InputError

app = typer.Typer()
data_app = typer.Typer(no_args_is_help=True, help="Look at images before they are used.")


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
    with make_view(quiet=False) as view:
        inspection = inspect_images(config.data, lambda done, of: view.preparing("checking images", done, of))
    check = check_data(inspection, config.data, seed)
    show_data_check(check)
    if check.problems:
        raise InputError(list(check.problems))


app.add_typer(data_app, name="data", rich_help_panel=START)


@app.command(rich_help_panel=START)
def quickstart(
    name: Annotated[str, typer.Option(help="Name of the run.")] = "quickstart",
    quiet: Quiet = False,
    json_events: AsJson = False,
) -> None:
    """A whole small study on images that Thawline draws itself: search, retrain, evaluate."""
    from trainable.synthetic import draw_study

    images = Path("runs/quickstart-images")
    if not (images / "groups.csv").exists():
        shutil.rmtree(images, ignore_errors=True)
        draw_study(images, images_per_class=200, image_size=64, seed=1)
    config = load_study(str(shipped_study("quickstart")), [f"name={json.dumps(name)}"])
    with open_session(config, quiet, json_events) as session:
        session.search(choose_finalists(session))
        finish(session)
    if json_events:
        return
    show_best(session.paths)
    show_final(session.paths)

"""What several commands take and need: runs, study files, settings, a view."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from search import console
from search.config import StudyConfig
from search.errors import ConfigurationError
from search.paths import find_run
from trainable import ImageTrainable

if TYPE_CHECKING:
    from search.driver import Session
    from search.view.progress import View

START, SEARCH, MODEL = "Before a search", "The search", "The model"


def complete_runs(incomplete: str) -> list[str]:
    """Names of runs that begin so."""
    return [path.parent.name for path in Path("runs").glob("*/study.yaml") if path.parent.name.startswith(incomplete)]


def complete_studies(incomplete: str) -> list[str]:
    """Study files and runs that begin so."""
    path = Path(f"{incomplete}*")
    return [*(str(file) for file in path.parent.glob(path.name) if file.suffix == ".yaml"), *complete_runs(incomplete)]


Settings = Annotated[
    list[str], typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Override the study file; may be repeated.")
]
Quiet = Annotated[bool, typer.Option("--quiet", help="Show nothing while it runs.")]
AsJson = Annotated[
    bool,
    typer.Option("--json-events", help="Print every event and step as a line of JSON; see docs/follow_a_search.md."),
]
Run = Annotated[
    str, typer.Argument(metavar="RUN", help="A run folder, or its name under runs/.", autocompletion=complete_runs)
]


def load_study(study: str, overrides: list[str]) -> StudyConfig:
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
def open_session(
    config: StudyConfig, quiet: bool, json_events: bool = False, *, accept_loss: bool = False
) -> "Iterator[Session]":
    """One driver at work on the study, seen by the view that fits where it prints."""
    from search.driver import Session

    with Session(config, ImageTrainable(), make_view(quiet, json_events), accept_loss=accept_loss) as session:
        yield session


def make_view(quiet: bool, json_events: bool = False) -> "View":
    """JSON where it is wanted, nothing when quiet, else a live screen in a terminal and lines elsewhere."""
    from search.view.json_events import JsonEvents
    from search.view.progress import Lines, View
    from search.view.screen import Screen

    if json_events:
        return JsonEvents()
    if quiet:
        return View()
    return Screen() if console.err.is_terminal else Lines()

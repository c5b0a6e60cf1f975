"""What several commands take and need: runs, study files, settings, a view."""

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

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
StudyOrRun = Annotated[
    str,
    typer.Argument(metavar="STUDY", help="A study file, or a run to go on with.", autocompletion=complete_studies),
]
Name = Annotated[str | None, typer.Option(help="Name of the run; default: the study file's.")]
Trials = Annotated[int | None, typer.Option(help="Configurations to try; more than before extends a study.")]
TimeBudget = Annotated[
    str | None, typer.Option(metavar="TIME", help="For the search, all its sessions together: 90s, 30m, 1h30m.")
]
Final = Annotated[bool, typer.Option("--final", help="Go on: rerun finalists, export, retrain, evaluate.")]
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
    placed = [f"name={json.dumps(run.root.name)}", f"storage={json.dumps(str(run.root.parent), ensure_ascii=False)}"]
    return StudyConfig.load(run.study_file, [*placed, *overrides], ImageTrainable.sections)


def load_search(
    study: str, settings: list[str], given: Mapping[str, Any], time_budget: str | None, *, final: bool
) -> Any:
    """The study that a search command asks for.

    Args:
        study: A study file or a run.
        settings: Of `--set`.
        given: What other options say, by setting; None: nothing.
        time_budget: As typed.
        final: Whether the test part will be needed.

    Raises:
        ConfigurationError: when it can't be searched so.
    """
    given = {**given, "budget.wall_seconds": None if time_budget is None else _seconds(time_budget)}
    overrides = [*settings, *(f"{key}={json.dumps(value)}" for key, value in given.items() if value is not None)]
    config: Any = load_study(study, overrides)
    if final and config.data.split_file is None and config.data.split.test == 0:
        raise ConfigurationError("data.split.test: must be above 0 for --final, which evaluates on the test part")
    return config


def _seconds(text: str) -> float:
    """`90s`, `30m`, `1h30m` or a number of seconds."""
    parts = re.fullmatch(r"(?:([\d.]+)h)?(?:([\d.]+)m)?(?:([\d.]+)s?)?", text)
    try:
        if parts and any(parts.groups()):
            return sum(float(part or 0) * unit for part, unit in zip(parts.groups(), (3600, 60, 1), strict=True))
    except ValueError:  # 1.2.3
        pass
    raise ConfigurationError(f"--time-budget: must read 90s, 30m or 1h30m, but got {text!r}")


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

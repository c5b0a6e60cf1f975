"""Commands of the search: run it, look at it."""

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from search import console
from search.commands.arguments import (
    SEARCH,
    AsJson,
    Final,
    Name,
    Quiet,
    Run,
    Settings,
    StudyOrRun,
    TimeBudget,
    Trials,
    load_search,
    open_session,
)
from search.commands.final_stage import choose_finalists, finish
from search.config import StudyConfig
from search.console import near, say, show_best, show_final, show_state
from search.paths import find_run

if TYPE_CHECKING:
    from search.view.progress import View

app = typer.Typer()


@app.command(
    rich_help_panel=SEARCH,
    epilog="Examples: thawline search study.yaml --set data.image_size=96 --final. "
    "A search that was interrupted, or that shall try more: thawline search RUN --trials 50.",
)
def search(
    study: StudyOrRun,
    name: Name = None,
    trials: Trials = None,
    time_budget: TimeBudget = None,
    address: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="Ray cluster: auto or host:port; default: one started here.")
    ] = None,
    settings: Settings = [],  # noqa: B006
    final: Final = False,
    accept_loss: Annotated[
        bool, typer.Option("--accept-loss", help="Go on although the ledger has lost events for good.")
    ] = False,
    quiet: Quiet = False,
    json_events: AsJson = False,
) -> None:
    """Search, or go on with a search that was interrupted."""
    given = {"name": name, "budget.trials": trials, "resources.address": address}
    config = load_search(study, settings, given, time_budget, final=final)
    with open_session(config, quiet, json_events, accept_loss=accept_loss) as session:
        session.search(choose_finalists(session) if final else None)
        if final:
            finish(session)
    if json_events:  # standard output is for nothing else
        return
    show_best(session.paths)
    if final:
        show_final(session.paths)
    else:
        say(f"next: thawline retrain {near(session.paths.root)}")


@app.command(rich_help_panel=SEARCH)
def status(
    run: Run,
    watch: Annotated[bool, typer.Option("--watch", help="Go on looking until its driver ends, or Ctrl-C.")] = False,
    json_events: AsJson = False,
) -> None:
    """How far a run is, what it has used, whether somebody works on it; reads only what is on disk."""
    from search.ledger import read_history
    from search.lock import driver_at_work
    from search.view.board import Board
    from search.view.watching import until_interrupted, watch_study

    paths = find_run(run)
    if watch or json_events:
        with until_interrupted():
            watch_study(paths, _watching_view(json_events))
    if json_events:
        return
    config, history = StudyConfig.load(paths.study_file), read_history(paths.ledger)
    driver = driver_at_work(paths.lock)
    console.out.print(Board.of(config, history, at_work=driver is not None))
    show_state(paths, config, history, driver)


@app.command(rich_help_panel=SEARCH, epilog="Examples: thawline logs RUN 7; thawline logs RUN 7.1 --follow")
def logs(
    run: Run,
    trial: Annotated[str, typer.Argument(metavar="TRIAL", help="A trial's number, or a rerun's, such as 7.1.")],
    follow: Annotated[bool, typer.Option("--follow", help="Go on until the trial has ended, or Ctrl-C.")] = False,
) -> None:
    """What a trial wrote down: its configuration, each epoch with its times, and why it failed if it did."""
    from search.view.watching import follow_log, trial_log, until_interrupted

    paths = find_run(run)
    path = trial_log(paths, trial)
    if not follow:
        sys.stdout.write(path.read_text(encoding="utf-8", errors="replace"))
        return
    with until_interrupted():
        for text in follow_log(path, paths, trial):
            sys.stdout.write(text)
            sys.stdout.flush()


@app.command(rich_help_panel=SEARCH)
def dashboard(
    run: Run,
    port: Annotated[int, typer.Option(min=0, max=65535, help="On this machine; 0: any that is free.")] = 8080,
) -> None:
    """Open optuna-dashboard on a run, live while it is searched; it can look, and change nothing."""
    from search.bridges.dashboard import serve_dashboard
    from search.view.watching import until_interrupted

    with until_interrupted():
        serve_dashboard(find_run(run), port, lambda address: say(f"dashboard: {address} (Ctrl-C ends it)"))


def _watching_view(json_events: bool) -> "View":
    from search.view.json_events import JsonEvents
    from search.view.progress import Lines
    from search.view.screen import Screen

    if json_events:
        return JsonEvents()
    return Screen(console.out) if console.out.is_terminal else Lines(sys.stdout)

"""The command that runs a study on a cluster from a machine that is no part of it."""

import shlex
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated

import typer

from search.commands.arguments import (
    SEARCH,
    AsJson,
    Final,
    Name,
    Quiet,
    Settings,
    StudyOrRun,
    TimeBudget,
    Trials,
    load_search,
    make_view,
)
from search.console import complain, near, show_best, show_final
from search.errors import ConfigurationError, StudyStopped
from search.paths import StudyPaths, check_name

if TYPE_CHECKING:
    from search.launch.launch import Launch

app = typer.Typer()


@app.command(
    rich_help_panel=SEARCH,
    epilog="Examples: thawline launch study.yaml --address http://127.0.0.1:8265 --final; the same again looks at it, "
    "and fetches the run when it has ended; thawline launch study.yaml --stop. See docs/launch.md.",
)
def launch(
    study: StudyOrRun,
    name: Name = None,
    address: Annotated[
        str | None,
        typer.Option(metavar="URL", help="The cluster's dashboard; default: $RAY_API_SERVER_ADDRESS, else a tunnel."),
    ] = None,
    trials: Trials = None,
    time_budget: TimeBudget = None,
    settings: Settings = [],  # noqa: B006
    final: Final = False,
    send_code: Annotated[
        bool, typer.Option("--send-code", help="Run the code from here, even where this version is installed.")
    ] = False,
    stop: Annotated[bool, typer.Option("--stop", help="End the running search, and fetch what it has.")] = False,
    fetch: Annotated[bool, typer.Option("--fetch", help="Only fetch the run as it is now.")] = False,
    quiet: Quiet = False,
    json_events: AsJson = False,
) -> None:
    """Run a study on a Ray cluster from here; look at it, and bring the run back."""
    from search.addresses import check_no_secrets
    from search.interruption import Interrupted
    from search.launch.door import Door, Unreachable, door_address
    from search.launch.launch import Launch, Order

    given = {"name": name, "budget.trials": trials}
    config = load_search(study, settings, given, time_budget, final=final)
    check_name(config.name)
    check_no_secrets("logging.mlflow", str(config.logging.mlflow))  # before anything leaves this machine
    if config.storage_copy:
        check_no_secrets("storage_copy", config.storage_copy)
    order = Order(config, ("--final",) if final else (), send_code)
    door = Door(door_address(address))
    view = make_view(quiet, json_events)
    launched = Launch(door, order, view)
    try:
        door.check()
        with view:
            paths = _act(launched, stop=stop, fetch=fetch)
    except Unreachable as error:
        raise ConfigurationError(f"--address: {error}; is the tunnel still open?") from error
    except Interrupted:
        if launched.running:
            complain("left running", f"{launched.submission} goes on at {door.address}")
            options = {"--name": name, "--address": address, "--trials": trials, "--time-budget": time_budget}
            flags = [flag for flag, wanted in (("--final", final), ("--send-code", send_code)) if wanted]
            again = _command_again(study, options, settings, flags)
            complain("look again", again)
            complain("end it", f"{again} --stop")
        raise
    if json_events:
        return
    show_best(paths)
    if (paths.final / "metrics.json").is_file():
        show_final(paths)


def _act(launched: "Launch", *, stop: bool, fetch: bool) -> StudyPaths:
    """Do what is asked; the run as it is here then.

    Raises:
        StudyStopped: when the search did not come to its end; what it has is here all the same, where there is any.
    """
    from search.launch.launch import DoorLost

    if stop:
        launched.stop()
    elif not fetch and launched.begin():
        try:
            status = launched.follow()
        except DoorLost:
            raise
        except StudyStopped:
            with suppress(StudyStopped):
                launched.fetch()
            raise
        if status == "STOPPED":
            paths = launched.fetch()
            raise StudyStopped(f"{launched.submission} was stopped; {near(paths.root)} has what there is")
    paths = launched.fetch()
    if launched.other and not (stop or fetch):
        raise StudyStopped(
            f"{launched.submission} did what it was started with, and {near(paths.root)} has it; the same command "
            "again does what was asked now"
        )
    return paths


def _command_again(study: str, given: Mapping[str, object], settings: Sequence[str], flags: Sequence[str]) -> str:
    """The same order as a line to type."""
    words = [word for option, value in given.items() if value is not None for word in (option, str(value))]
    words += [word for setting in settings for word in ("--set", setting)]
    return shlex.join(["thawline", "launch", study, *words, *flags])

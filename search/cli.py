"""`thawline …`: the commands put together, and what their ends mean to a shell.

Commands import what they need when they run, so that `--help` is instant.
"""

import os
import select
import sys
from typing import Annotated

import typer

from search.answers import leave
from search.commands import launching, model, results, searching, start
from search.console import complain, say
from search.errors import ConfigurationError, LedgerError, StudyStopped
from trainable import DeploymentError, InputError, TrialError

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="How should this pre-trained network be fine-tuned on these images?",
    epilog="A study is one file, a run its folder under runs/. First steps: thawline init, thawline data check DIR, "
    "thawline search study.yaml --final. Or, without images: thawline quickstart.",
)
for each in (start, searching, launching, results, model):
    app.add_typer(each.app)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        say(f"thawline {version('thawline')}")
        raise typer.Exit


Version = Annotated[
    bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
]


@app.callback()
def thawline(version: Version = False) -> None:
    """Options of the program itself."""


def main() -> None:
    """Entry point: exit code 0 means that everything promised was produced, 2 that nothing was started."""
    for stream in (sys.stdout, sys.stderr):  # file names may hold what the terminal's encoding lacks
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    leave(_exit_code())


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
    except (StudyStopped, LedgerError, TrialError, DeploymentError) as error:
        complain("stopped", error)
        return 1
    except Interrupted as interruption:
        complain("interrupted", f"{interruption}; what is recorded is safe, the same command goes on from it")
        return interruption.exit_code
    except BrokenPipeError:
        if not _reader_gone():  # a pipe of somebody else's broke, and that must not end us without a word
            raise
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


def _reader_gone() -> bool:
    """Whether nobody reads what is printed any more: `thawline trials RUN | head` has seen enough."""
    output = select.poll()
    output.register(sys.stdout.fileno(), 0)
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in output.poll(0))


if __name__ == "__main__":
    main()

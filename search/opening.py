"""What must hold before a session goes on with what earlier ones left in its run folder or in its copy."""

import re
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

from search.answers import answer_of
from search.config import StudyConfig, differences
from search.disk import check_folder
from search.entries import Entry
from search.errors import ConfigurationError, LedgerError
from search.history import History
from search.lock import exclusive
from search.paths import StudyPaths, check_private
from search.place import Place
from search.recovery import read_entries
from search.storage_copy import read_copy, restore_files

# What may change between two sessions of one study: how long and where it runs, not what it means.
CHANGEABLE = (
    "budget.trials",
    "budget.checkpoint_every",
    "budget.checkpoint_seconds",
    "budget.wall_seconds",
    "budget.consecutive_failures",
    "budget.retries",
    "budget.silence_seconds",
    "resources.",
    "final.",
    "logging.",
    "storage_copy",
)
ANSWER_SECONDS = 60.0  # in which a copy must say what it has; all of it may take longer
_TRIAL = re.compile(r"\d+(\.\d+)?")  # the folder of a trial or of its rerun


@contextmanager
def only_driver(paths: StudyPaths) -> Iterator[Callable[[], None]]:
    """The run folder, made and found fit, for this driver alone; what killed ones left half written is removed.

    Yields:
        What raises the same error as soon as another driver has it, see `exclusive`.

    Raises:
        ConfigurationError: when it can't be made or written, is everybody's to write, or another driver has it.
    """
    with ExitStack() as stack:
        stack.callback(leave_no_trace, paths)
        try:
            paths.root.mkdir(parents=True, exist_ok=True)
            check_private(paths)
            check = stack.enter_context(exclusive(paths.lock))
            for half in paths.root.glob(".*.tmp*"):  # SQLite adds an ending
                half.unlink(missing_ok=True)
            check_folder(paths.root)
        except OSError as error:
            raise ConfigurationError(
                f"storage: the run folder {paths.root} must be writable, but {error.strerror}"
            ) from error
        yield check


def entries_elsewhere(paths: StudyPaths, place: Place | None, say: Callable[[str], None]) -> dict[str, list[Entry]]:
    """What the copy has of this study; brings its files back where the run folder has nothing.

    Raises:
        ConfigurationError: when the copy can't be reached and nothing is here: there may be a study to go on with; or
            when a new study could not be copied there.
    """
    if place is None:
        return {}
    here = begun(paths)
    try:
        answer_of(place.files, ANSWER_SECONDS)
        entries = answer_of(lambda: read_copy(place))
        if not entries and not here:
            answer_of(place.check_usable, ANSWER_SECONDS)
        if entries and not here:
            answer_of(lambda: restore_files(place, paths))
            say(f"{paths.root} is empty: the study, {len(entries)} events, comes back from its copy in {place.name}")
    except OSError as error:
        if not here:
            raise ConfigurationError(f"storage_copy: {place.name} must be within reach, but {error}") from error
        say(f"copy in {place.name}: {error}; the study goes on without it for now")
        return {}
    return {place.name: entries} if entries else {}


def leave_no_trace(paths: StudyPaths) -> None:
    """A study that was refused leaves no folder behind."""
    if not paths.study_file.exists():
        with suppress(OSError):  # something is in it that another start can use
            paths.root.rmdir()


def begun(paths: StudyPaths) -> bool:
    """Whether a session has begun to record the study here."""
    return paths.ledger.exists() or paths.journal.exists()


def check_trials_known(paths: StudyPaths, history: History, accept_loss: bool) -> None:
    """That the ledger knows of every trial that has a folder: folders are made after the suggestion is durable.

    Raises:
        LedgerError: when it does not, and that was not accepted; else such folders are moved aside, because their
            numbers will be given to other configurations.
    """
    known = {paths.trial(*key).name for key in history.trials}
    unknown = sorted(path for path in paths.trials.glob("*") if _TRIAL.fullmatch(path.name) and path.name not in known)
    if unknown and not accept_loss:
        names = ", ".join(path.name for path in unknown)
        raise LedgerError(
            f"{paths.ledger}: must know every trial that has a folder, but does not know {names}: events were lost. "
            f"Put back a copy, or, to go on without what is lost: thawline search {paths.root.name} --accept-loss"
        )
    for path in unknown:
        path.rename(path.with_name(f"{path.name}-lost-{uuid.uuid4().hex[:8]}"))


def earlier_study(paths: StudyPaths, elsewhere: Mapping[str, Sequence[Entry]]) -> StudyConfig | None:
    """The study file of an earlier session, with what it recorded; None for a new study.

    Raises:
        LedgerError: when there is one, but no ledger; or none, though trials were asked for.
    """
    if not paths.study_file.exists():
        records = [*elsewhere.values(), read_entries(paths.ledger) if begun(paths) else ()]
        if any(entry.kind == "asked" for record in records for entry in record):
            places = " and ".join(map(str, (paths.root, *elsewhere)))
            raise LedgerError(
                f"{paths.study_file}: trials were asked for, so the study file must be here too, but it is gone; put "
                f"it back, or remove {places} to begin anew"
            )
        return None
    if not begun(paths) and not elsewhere:
        raise LedgerError(
            f"{paths.ledger}: a study was begun here, so its ledger must be here too, but it is gone; put back a copy, "
            f"or remove {paths.root} to begin anew"
        )
    return StudyConfig.load(paths.study_file)


def check_same_study(paths: StudyPaths, earlier: StudyConfig, config: StudyConfig) -> None:
    """That a study goes on as it was begun.

    Raises:
        ConfigurationError: when the earlier session had another configuration; the differences are named.
    """
    changed = [line for line in differences(earlier.settings(), config.settings()) if not line.startswith(CHANGEABLE)]
    if changed:
        raise ConfigurationError(
            [f"{paths.root} holds a study with another configuration; give another --name, or undo:", *changed]
        )


def check_same_data(record: Mapping[str, Any] | None, now: Mapping[str, Any]) -> None:
    """Every trial of a study, in whatever session, learns from the same images and starts from the same weights.

    Raises:
        ConfigurationError: with whatever is not the same.
    """
    earlier = record or {}
    facts = {
        "data: a study is of one set of images, but its fingerprint": [
            each.get("data", {}).get("fingerprint") for each in (earlier, now)
        ],
        "model.weights: a study starts from one set of weights, but their sha256": [
            each.get("weights_sha256") for each in (earlier, now)
        ],
    }
    problems = [
        f"{what} was {before} and is {came}" for what, (before, came) in facts.items() if before not in (None, came)
    ]
    if problems:
        raise ConfigurationError(problems)

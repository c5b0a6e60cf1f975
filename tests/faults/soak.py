"""Drivers that are killed again and again, and the account of what was lost.

A driver here is a whole session (lock, ledger, Optuna, study file, copy) whose trials are computed on the spot instead
of by Ray, so that a study takes a fraction of a second. Each runs in a forked process that tells of every event once it
is acknowledged; what it told is compared with what the next one finds.

`python soak.py --kills 200` prints the account as JSON.
"""

import argparse
import contextlib
import io
import itertools
import json
import math
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow.fs  # noqa: F401 - here, so that no forked driver spends its short life on it
from pydantic import BaseModel

from search import database, journal
from search.config import Objective, StudyConfig
from search.driver import Session
from search.events import to_json
from search.history import History
from search.interruption import Interrupted, interruptible
from search.ledger import Ledger, read_history
from search.paths import StudyPaths
from search.recovery import read_entries
from search.study import Study
from search.trial_source import Report

TRIALS, EPOCHS = 12, 3
EXPECTED = {"study.yaml", "study.db", "study.db-wal", "study.db-shm", "study.events.jsonl"}  # -wal, -shm: of readers
OBJECTIVE = Objective(metric="v")
LIMIT = 30.0  # seconds after which a driver counts as stuck


class Training(BaseModel):
    x: float = 0.0
    kind: str = "a"


class Pretender:
    """A trainable whose trials need no worker."""

    sections = {"training": Training}  # noqa: RUF012 - as the protocol has it
    metrics = {"v": "maximize"}  # noqa: RUF012 - as the protocol has it
    trial_class = object

    def settled(self, config: Any, earlier: Any) -> Any:
        return config

    def prepare(self, config: Any, largest: Any, folder: Path, progress: Any) -> Any:
        return SimpleNamespace(record={}, context={}, remarks=())


class Driver(Session):
    """A session whose trials are computed on the spot, one after the other."""

    pause = 0.0  # seconds per epoch

    def _run(self, source: Any) -> None:
        while request := source.ask():
            source.started(request.key, "here")
            for epoch in range(request.epochs_reported + 1, request.epochs + 1):
                time.sleep(self.pause)
                value = score(request.parameters, epoch)
                if source.report(request.key, Report(epoch, {"v": value})) != "continue":
                    break


def score(parameters: dict[str, Any], epoch: int) -> float:
    """A value with its best at x = 0.3, kind b; grows with epochs."""
    return (1.0 - (parameters["x"] - 0.3) ** 2 - 0.1 * (parameters["kind"] == "a")) * (1 - math.exp(-epoch))


def study(folder: Path, seed: int, **more: Any) -> StudyConfig:
    """A study under `folder`."""
    return StudyConfig.parse(
        {
            "name": "it",
            "seed": seed,
            "storage": str(folder),
            "storage_copy": (folder / "copy").as_uri(),
            "space": {
                "x": {"type": "float", "low": 0.0, "high": 1.0},
                "kind": {"type": "choice", "values": ["a", "b", "c"]},
            },
            "objective": {"metric": "v"},
            "sampler": {"startup_trials": 4},
            "budget": {"trials": TRIALS, "epochs": EPOCHS},
            "final": {"finalists": 2, "repeats": 2},
        }
        | more
    )


def best_two(history: History) -> list[int]:
    """The finalists."""
    trials = [trial for trial in history.search_trials() if trial.best(OBJECTIVE)]
    return [trial.number for trial in sorted(trials, key=lambda trial: -trial.best(OBJECTIVE)[1])[:2]]


def drive(config: StudyConfig, tell: Callable[[str], None] = lambda text: None) -> int:
    """One session to its end; every acknowledged event is told."""
    with interruptible(), Driver(config, Pretender()) as session:
        session.ledger.listeners.append(lambda event: tell(f"{event.kind} {to_json(event)}\n"))
        session.search(best_two)
    return 0


@dataclass
class Account:
    """What many kills did. All but the first three must be 0."""

    kills: int = 0
    studies: int = 0
    acknowledged: int = 0
    lost: int = 0
    duplicated: int = 0
    stuck: int = 0
    different: int = 0
    left_over: int = 0
    notes: list[str] = field(default_factory=list)

    @property
    def clean(self) -> bool:
        return not (self.lost or self.duplicated or self.stuck or self.different or self.left_over)


@dataclass
class Outcome:
    """How one driver ended, what it had told until then, and how many seconds it took to end once it was killed."""

    status: int
    told: list[str]
    seconds: float = 0.0


def fork_driver(
    config: StudyConfig,
    kill: "Kill | None" = None,
    prepare: Callable[[], None] = lambda: None,
) -> Outcome:
    """A driver in a process of its own.

    Args:
        config: Its study.
        kill: When it is killed; None: never.
        prepare: Called in that process before anything else.
    """
    reading, writing = os.pipe()
    process = os.fork()
    if not process:
        os.close(reading)
        code = 1
        try:
            prepare()
            code = drive(config, lambda text: os.write(writing, text.encode()) and None)
        except Interrupted as interruption:
            code = interruption.exit_code
        except BaseException as error:  # noqa: BLE001 - a process must end here, not in the caller's code
            sys.stderr.write(f"driver: {type(error).__name__}: {error}\n")
        finally:
            os._exit(code)
    os.close(writing)
    told, killed_at = _until_end(reading, process, kill or Kill(LIMIT))
    _, status = os.waitpid(process, 0)
    return Outcome(status, told, time.monotonic() - killed_at if killed_at else 0.0)


def fork(act: Callable[[], Any], prepare: Callable[[], None] = lambda: None) -> int:
    """The wait status of a process of its own that does this."""
    process = os.fork()
    if not process:
        code = 1
        try:
            prepare()
            act()
            code = 0
        except BaseException as error:  # noqa: BLE001 - as above
            sys.stderr.write(f"process: {type(error).__name__}: {error}\n")
        finally:
            os._exit(code)
    return os.waitpid(process, 0)[1]


@dataclass(frozen=True)
class Kill:
    """When and how a driver is killed. `at_work`: the seconds count from its first event, not from its start."""

    seconds: float
    at_work: bool = False
    signal: int = signal.SIGKILL


def _until_end(reading: int, process: int, kill: Kill) -> tuple[list[str], float]:
    """What was told, and when the process was killed; 0 when it was not."""
    began = None if kill.at_work else time.monotonic()
    os.set_blocking(reading, False)
    content, killed_at = b"", 0.0
    while True:
        try:
            part = os.read(reading, 1 << 16)
        except BlockingIOError:
            time.sleep(0.0005)
            part = None
        if part == b"":
            break
        content += part or b""
        if content and began is None:
            began = time.monotonic()
        if not killed_at and began is not None and time.monotonic() >= began + kill.seconds:
            os.kill(process, kill.signal)
            killed_at = time.monotonic()
    os.close(reading)
    return [line for line in content.decode().split("\n")[:-1] if line], killed_at


def check_after_kill(paths: StudyPaths, told: list[str], account: Account, kills: int) -> None:
    """Whether everything told is recorded, bit for bit, in order, with at most one untold event for each kill."""
    recorded: list[str] = []
    if paths.ledger.exists() or paths.journal.exists():
        recorded = [f"{entry.kind} {entry.body}" for entry in read_entries(paths.ledger)]
    position = 0
    for line in told:
        try:
            position = recorded.index(line, position) + 1
        except ValueError:
            account.lost += 1
    sessions = sum(line.startswith("session_opened") for line in recorded)
    untold = len(recorded) - len(told) - sessions
    if untold > kills:
        account.duplicated += untold - kills
        account.notes.append(f"{untold} events that nobody was told of after {kills} kills")


def check_finished(paths: StudyPaths, config: StudyConfig, account: Account, reference: Any) -> None:
    """Whether a finished study is as one that was never interrupted, and nothing else is left."""
    left = {path.name for path in paths.root.iterdir()} - EXPECTED
    history = read_history(paths.ledger)
    numbers = [trial.number for trial in history.search_trials()]
    account.lost += len(set(range(config.budget.trials)) - set(numbers))
    asked = Counter(
        (body["number"], body["repeat"])
        for entry in read_entries(paths.ledger)
        if entry.kind == "asked" and (body := json.loads(entry.body))
    )
    reported = Counter((trial.key, epoch.epoch) for trial in history.trials.values() for epoch in trial.epochs)
    account.duplicated += sum(count > 1 for count in [*asked.values(), *reported.values()])
    account.stuck += sum(not trial.ended for trial in history.trials.values())
    if outline(paths, config) != reference:
        account.different += 1
        account.notes.append(f"seed {config.seed}: differs from the uninterrupted study")
    account.left_over += len(left)
    account.notes += sorted(left)


def outline(paths: StudyPaths, config: StudyConfig) -> Any:
    """What a study came to: its trials without clocks, its best, and what it would suggest next."""
    history = read_history(paths.ledger)
    table = [
        (
            trial.key,
            trial.parameters,
            trial.seed,
            trial.status,
            trial.reason,
            [(e.epoch, e.metrics) for e in trial.epochs],
        )
        for trial in history.trials.values()
    ]
    return table, best_two(history), next_suggestion(paths, config)


def next_suggestion(paths: StudyPaths, config: StudyConfig) -> Any:
    """What the study would try if it were extended; its ledger stays as it is."""
    extended = config.model_copy(
        update={"budget": config.budget.model_copy(update={"trials": config.budget.trials + 1})}
    )
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "study.db"
        database.create(copy, read_entries(paths.ledger))
        with Ledger(copy) as ledger:
            request = Study(extended, ledger).ask()
    return request and (request.parameters, request.seed)


def uninterrupted(seed: int, **more: Any) -> Any:
    """The outline of a study that nobody kills."""
    with tempfile.TemporaryDirectory() as folder:
        config = study(Path(folder), seed, **more)
        outcome = fork_driver(config)
        if outcome.status:
            raise RuntimeError("a driver that nobody kills must finish")
        return outline(StudyPaths(Path(folder) / "it"), config)


def soak(kills: int, seed: int) -> Account:
    """Kill drivers at random times, one in three while they start, each study resumed until it is done.

    Args:
        kills: In all.
        seed: Of the times and of the studies.
    """
    draw, account = random.Random(seed), Account()

    def next_kill() -> Kill:
        at_work = draw.random() < 2 / 3
        return Kill(draw.uniform(0, 0.1 if at_work else 0.3), at_work)

    while account.kills < kills:
        study_seed = draw.randrange(2**31)
        reference = uninterrupted(study_seed)
        with tempfile.TemporaryDirectory() as folder:
            _kill_until_done(study(Path(folder), study_seed), reference, account, kills, next_kill)
        account.studies += 1
    return account


def _kill_until_done(
    config: StudyConfig, reference: Any, account: Account, kills: int, next_kill: Callable[[], Kill]
) -> None:
    paths, told, killed = StudyPaths(config.storage / "it"), list[str](), 0
    while True:
        outcome = fork_driver(config, next_kill() if account.kills < kills else None)
        told += outcome.told
        if os.WIFSIGNALED(outcome.status):
            account.kills += 1
            killed += 1
            check_after_kill(paths, told, account, killed)
            continue
        account.acknowledged += len(told)
        if os.WEXITSTATUS(outcome.status):
            account.stuck += 1
            account.notes.append(f"a resumed driver ended with {os.WEXITSTATUS(outcome.status)}")
        else:
            check_finished(paths, config, account, reference)
        return


@dataclass
class Failures:
    """Sessions of which one write each failed, and what a second one made of that."""

    tried: int = 0
    recovered: int = 0
    wrong: list[str] = field(default_factory=list)


def fail_every_write(folder: Path, code: int, step: int = 1) -> Failures:
    """The first, second, third … write of a session fails, until one has no so-manieth write."""
    small = {"storage_copy": None, "budget": {"trials": 4, "epochs": 2}, "final": {"finalists": 0}}
    reference, failures = uninterrupted(1, **small), Failures()
    for number in itertools.count(1, step):
        with tempfile.TemporaryDirectory(dir=folder) as made:
            config, paths, marker = study(Path(made), 1, **small), StudyPaths(Path(made) / "it"), Path(made) / "failed"
            first = fork_driver(config, prepare=_failing(number, code, paths.root, marker))
            if not marker.exists():
                return failures
            failures.tried += 1
            finished = first.status == 0 and outline(paths, config) == reference
            second = fork_driver(config)
            if second.status == 0 and outline(paths, config) == reference and (finished or first.status):
                failures.recovered += 1
            else:
                failures.wrong.append(f"write {number}: exit codes {first.status}, {second.status}")
    raise AssertionError("unreachable")


def _failing(number: int, code: int, folder: Path, marker: Path) -> Callable[[], None]:
    from failing_disk import FailingDisk, failing_disk

    class Telling(FailingDisk):
        def call(self, what: str, path: Any) -> None:
            try:
                super().call(what, path)
            except OSError:
                os.close(os.open(marker, os.O_CREAT))
                raise

    held = contextlib.ExitStack()  # until the process ends

    def prepare() -> None:
        held.enter_context(contextlib.redirect_stderr(io.StringIO()))  # that it stops, and says so, is what is tried
        held.enter_context(failing_disk(Telling(folder, number, code)))

    return prepare


POINTS = ("before the journal", "between journal and commit", "after the commit")


def die_at(event: int, point: str) -> Callable[[], None]:
    """Has the process kill itself at one of `POINTS` of so-manieth append (1, 2, 3 …)."""

    def prepare() -> None:
        calls = 0
        insert, append = database.insert, journal.Journal.append

        def counted_insert(*arguments: Any, **options: Any) -> None:
            nonlocal calls
            calls += "before_commit" in options  # without, it is a database being made
            insert(*arguments, **options)
            if "before_commit" in options and calls == event and point == POINTS[2]:
                os.kill(os.getpid(), signal.SIGKILL)

        def counted_append(*arguments: Any) -> None:
            if calls == event and point == POINTS[0]:
                os.kill(os.getpid(), signal.SIGKILL)
            append(*arguments)
            if calls == event and point == POINTS[1]:
                os.kill(os.getpid(), signal.SIGKILL)

        database.insert, journal.Journal.append = counted_insert, counted_append

    return prepare


def kill_at_every_event(seed: int, step: int = 1) -> Account:
    """A kill at each of `POINTS` of every so-manieth event of a study, each resumed at once."""
    account, reference = Account(), uninterrupted(seed)
    for event in itertools.count(1, step):
        for point in POINTS:
            with tempfile.TemporaryDirectory() as folder:
                config, paths = study(Path(folder), seed), StudyPaths(Path(folder) / "it")
                killed = fork_driver(config, prepare=die_at(event, point))
                if not os.WIFSIGNALED(killed.status):
                    return account
                account.kills += 1
                account.acknowledged += len(killed.told)
                check_after_kill(paths, killed.told, account, 1)
                account.stuck += fork_driver(config).status != 0
                check_finished(paths, config, account, reference)
    return account


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    began = time.monotonic()
    account = soak(arguments.kills, arguments.seed)
    sys.stdout.write(json.dumps({**asdict(account), "seconds": round(time.monotonic() - began, 1)}) + "\n")


if __name__ == "__main__":
    main()

"""One study on a cluster, seen from here: started or found there, followed, stopped, brought back."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from search.config import StudyConfig
from search.errors import ConfigurationError, StudyStopped
from search.events import Event
from search.launch.door import TERMINAL, Door, Unreachable
from search.launch.errand import run_errand
from search.launch.fetch import check_free, fetch_ledger, fetch_run
from search.launch.parcel import RUNS, STUDY_FILE, Inputs, digest_of, inputs_of, pack_search, paths_of, study_there
from search.launch.replay import Replay, read_events
from search.launch.suitability import MODULES, code_is_sent, code_problems, problems_of
from search.paths import StudyPaths, is_there
from search.view.progress import View

PAUSES = (1.0, 2.0, 5.0, 10.0)  # seconds between attempts to reach a door that was lost, the last one again and again
LOST_SECONDS = 600.0  # after which nobody is waited for any more; the job goes on


class DoorLost(StudyStopped):
    """Nothing answers any more; what runs there goes on."""


@dataclass(frozen=True)
class Order:
    """What is wanted of a cluster.

    Attributes:
        config: The study, with a name.
        options: Of `thawline search` there, beyond the study file.
        send_code: Whether our code goes along even where the same version is installed.
    """

    config: StudyConfig
    options: tuple[str, ...] = ()
    send_code: bool = False

    @property
    def name(self) -> str:
        return str(self.config.name)

    @property
    def target(self) -> Path:
        """Where the run folder comes to here."""
        return (self.config.storage / self.name).absolute()


class Launch:
    """An order and the cluster behind a door.

    Attributes:
        submission: Name of the job that is looked at; None before there is one.
        running: Whether that job was still at work when it was last looked at.
        other: Whether it was started with other settings than this order's.
    """

    def __init__(self, door: Door, order: Order, view: View):
        self.door, self.order, self.view = door, order, view
        self.submission: str | None = None
        self.running = self.other = False
        self._too_much: list[str] = []  # why the inputs that are here cannot be sent
        self._has_past = True  # whether a ledger may be there that says what earlier jobs did

    def begin(self) -> bool:
        """Find the study's running job, or one that has done all of this order, or start one; whether one runs now.

        Raises:
            ConfigurationError: with every problem, before anything has run.
        """
        check_free(self.order.target)
        jobs = self.door.jobs(self.order.name)
        last = jobs[-1] if jobs else None
        try:
            inputs = inputs_of(paths_of(self.order.config))
        except ConfigurationError as error:  # the same paths may be there
            inputs, self._too_much = None, error.problems
        study = study_there(self.order.config, inputs)
        digest = digest_of((study, self.order.options))
        same = last is not None and last.metadata.get("thawline_order") == digest
        if last is not None and (last.status not in TERMINAL or (last.status == "SUCCEEDED" and same)):
            self.submission = last.submission_id
            if last.status not in TERMINAL:
                self.other = not same
                other = "; it was started with other settings, and goes on with them" if self.other else ""
                self.view.say(f"{self.order.name} is running there already, as {last.submission_id}{other}")
            self.running = last.status not in TERMINAL
            return self.running
        with_code = self._check(inputs)
        if self.order.target.exists() and not (self._has_past or self.order.config.storage_copy):
            raise ConfigurationError(
                f"{self.order.target}: is a copy of a run that is not there any more, and the one that would be "
                "started must not take its place; give another --name, or move it away"
            )
        self._deliver(inputs)
        number = 1 + (int(last.submission_id.rpartition("-")[2]) if last else 0)
        self._submit(f"thawline-{self.order.name}-{number}", study, digest, with_code)
        return True

    def _check(self, inputs: Inputs | None) -> bool:
        """Whether the code goes along, when nothing is in the way."""
        config = self.order.config
        here = inputs.paths if inputs else {}
        elsewhere = {setting: path for setting, path in paths_of(config).items() if setting not in here}
        self.view.preparing("looking at the cluster", 0, 1)
        self._there = run_errand(
            self.door,
            "probe",
            {
                "paths": [*map(str, elsewhere.values()), f"{RUNS}/{config.name}", *([inputs.target] if inputs else [])],
                "modules": MODULES,
            },
        )
        self._has_past = f"{RUNS}/{config.name}" in self._there["paths"]
        with_code = code_is_sent(self._there, self.order.send_code)
        not_here = {setting: path for setting, path in elsewhere.items() if not is_there(path)}
        problems = problems_of(config, self._there, self.door.nodes(), not_here)
        in_both = elsewhere.keys() - not_here.keys()
        if any(str(elsewhere[setting]) not in self._there["paths"] for setting in in_both):
            problems += self._too_much
        problems += code_problems(self._there) if with_code else []
        if problems:
            raise ConfigurationError(problems)
        self.view.preparing("looking at the cluster", 1, 1)
        return with_code

    def _deliver(self, inputs: Inputs | None) -> None:
        if inputs is None or inputs.target in self._there["paths"]:
            return
        what = f"sending {', '.join(inputs.paths)} ({inputs.size / 1e6:.1f} MB)"
        self.view.preparing(what, 0, 1)
        run_errand(self.door, "receive", {"target": inputs.target}, inputs)
        self.view.preparing(what, 1, 1)

    def _submit(self, submission: str, study: str, digest: str, with_code: bool) -> None:
        self.view.preparing("starting the search", 0, 1)
        command = ["python", "-m", "search.cli", "search", STUDY_FILE, "--json-events", *self.order.options]
        with TemporaryDirectory() as folder:
            package = pack_search(study, with_code, Path(folder) / "search.zip")
            metadata = {"thawline_search": self.order.name, "thawline_order": digest}
            self.door.submit(command, package, submission, metadata)
        self.submission, self.running = submission, True
        self.view.preparing("starting the search", 1, 1)

    def find(self) -> None:
        """The study's last job, whatever it was started with.

        Raises:
            ConfigurationError: when there is none.
        """
        jobs = self.door.jobs(self.order.name)
        if not jobs:
            raise ConfigurationError(f"{self.order.name}: must be a study that was launched, but has no job there")
        self.submission = jobs[-1].submission_id

    def stop(self) -> None:
        """End the job, and wait until it has."""
        self.find()
        self.door.stop(str(self.submission))
        while self.door.job(str(self.submission)).status not in TERMINAL:
            time.sleep(1.0)

    def follow(self) -> str:
        """Show the job to its end; how Ray says that it ended.

        Raises:
            ConfigurationError: when its study was refused there.
            StudyStopped: when it failed.
            DoorLost: when the door stayed closed.
        """
        submission = str(self.submission)
        replay = Replay(self.view, self.order.config, self._past() if self._has_past else [])
        read_along(self.door, submission, replay, self.view.say)
        self.running = False
        job = _patient(lambda: self.door.job(submission), self.view.say)
        if job.status == "FAILED":
            if job.driver_exit_code == 2:
                raise ConfigurationError(
                    f"the search was refused on the cluster ({submission}), for what it says above"
                )
            raise StudyStopped(f"{submission} failed: {replay.reason or str(job.message).strip().splitlines()[-1]}")
        return str(job.status)

    def _past(self) -> list[tuple[float, Event]]:
        with TemporaryDirectory() as folder:
            ledger = _patient(lambda: fetch_ledger(self.door, self.order.name, Path(folder)), self.view.say)
            return read_events(ledger)

    def fetch(self) -> StudyPaths:
        """The run folder, here."""
        self.view.preparing("fetching the run", 0, 1)
        paths = _patient(lambda: fetch_run(self.door, self.order.name, self.order.target), self.view.say)
        self.view.preparing("fetching the run", 1, 1)
        return paths


def read_along(door: Door, submission: str, replay: Replay, say: Callable[[str], None]) -> None:
    """Give a job's whole log to `replay`, each byte once, over however many connections.

    Raises:
        DoorLost: when the door stayed closed.
    """

    def read() -> None:
        for piece in door.follow(submission, replay.seen):
            replay.take(piece)

    _patient(read, say, progress=lambda: replay.seen)
    replay.close()


def _patient(work: Callable[[], Any], say: Callable[[str], None], progress: Callable[[], int] = lambda: 0) -> Any:
    """Do something as often as it takes while the door does not answer; progress in between starts the waiting anew."""
    failures, lost, before = 0, time.monotonic(), progress()
    while True:
        try:
            result = work()
        except Unreachable as error:
            if progress() != before:
                failures, lost, before = 0, time.monotonic(), progress()
            if failures == 0:
                lost = time.monotonic()
                say(f"{error}; it is tried again, the job goes on meanwhile")
            elif time.monotonic() - lost > LOST_SECONDS:
                raise DoorLost(f"{error}, for {LOST_SECONDS / 60:.0f} minutes; the job goes on there") from error
            time.sleep(PAUSES[min(failures, len(PAUSES) - 1)])
            failures += 1
        else:
            return result

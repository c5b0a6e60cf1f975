"""A copy of a study in another place, kept up by a thread that no trial ever waits for.

The ledger's entries lie there in pieces of `PIECE`; only the last piece is ever written again. With them go the files
that a resumed study needs, the newest checkpoint of each running trial, and what was made of the winner.
"""

import math
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path
from typing import IO

from search import journal
from search.answers import asking, unheard
from search.entries import Entry, united
from search.errors import ConfigurationError, LedgerError, StudyStopped
from search.events import EpochReported, Event, Failed, Pruned, TrialKey
from search.ledger import Ledger
from search.paths import MANIFEST, StudyPaths
from search.place import Place
from search.recovery import journal_of

PIECE = 1000  # entries; some 300 kB
PATIENCE_SECONDS = 60.0  # at the end of a session, for a place to which nothing gets through
ATTEMPTS = 3  # so often one and the same may get through and count as getting on
HASTE_SECONDS = 1.0  # in all, when the session is told to stop
_PAUSES = (1.0, 2.0, 5.0, 15.0, 60.0)  # seconds between attempts, the last one for ever
_FILES = ("study.yaml", "split.csv", "unreadable.csv", "best.yaml")


def copy_of(paths: StudyPaths, address: str | None) -> Place | None:
    """Where the copy of a run is, when its study has one (`storage_copy`).

    Raises:
        ConfigurationError: when that is no place, or in the run folder itself.
    """
    if address is None:
        return None
    place = Place.at(address) / paths.root.name
    here = place.filesystem.type_name == "local"
    if here and Path(place.folder).resolve().is_relative_to(paths.root.resolve()):
        raise ConfigurationError(f"storage_copy: must be another place than the run folder, but got {address}")
    return place


def read_copy(place: Place, read: Callable[[str], None] = lambda name: None) -> list[Entry]:
    """The entries that the place has of a study; none when it has no copy.

    Args:
        place: Of the copy.
        read: Is told of each piece that came.

    Raises:
        OSError: when it can't be reached.
    """
    pieces, found = place / "events", {}
    for name in pieces.files():
        found[name] = journal.parse((pieces / name).read() or b"").entries
        read(name)
    return united(found)


def restore_files(place: Place, paths: StudyPaths) -> None:
    """Bring the study's files and checkpoints back; the ledger is made from `read_copy`."""
    for name in place.files():
        wanted = name in _FILES or name.startswith((f"{paths.trials.name}/", f"{paths.final.name}/"))
        if wanted and ".." not in Path(name).parts:
            (place / name).fetch(paths.root / name)


@contextmanager
def copied(ledger: Ledger, paths: StudyPaths, place: Place, say: Callable[[str], None]) -> "Iterator[StorageCopy]":
    """While the block runs, what happens reaches the place; when it ends well, all of it has.

    Raises:
        StudyStopped: when the block ended well, but the copy could not be completed.
    """
    copy = StorageCopy(ledger, paths, place, say)
    ledger.listeners.append(copy.happened)
    copy.start()
    try:
        yield copy
    except BaseException:
        copy.finish(HASTE_SECONDS, at_most=HASTE_SECONDS)
        raise
    if not copy.finish(PATIENCE_SECONDS):
        raise StudyStopped(
            f"the copy in {place.name} must be complete, but {copy.problem or 'nothing got through in time'}; "
            f"the study itself is whole in {paths.root}, and the same command completes the copy"
        )


class StorageCopy:
    """The thread and what it has still to do.

    Attributes:
        problem: Why the last attempt failed; None when it did not.
    """

    def __init__(self, ledger: Ledger, paths: StudyPaths, place: Place, say: Callable[[str], None]):
        self.problem: str | None = None
        self._ledger, self._paths, self._place, self._say = ledger, paths, place, unheard(say)
        self._pieces = _Pieces(journal_of(ledger.path), place, self._got_on)
        self._files: dict[str, tuple[int, int]] = {}
        # The checkpoint of each that is in the place; empty: not known yet.
        self._running = {trial.key: "" for trial in ledger.history.trials.values() if trial.epochs and not trial.ended}
        self._over: set[TrialKey] = set()
        self._looked = False  # for checkpoints of trials that ended in an earlier session
        self._wanted, self._done = 1, 0  # changes so far; those of them that are in the place
        self._steps = 0  # that got through, however small
        self._passed = Counter[tuple[object, ...]]()  # how often each of them did, in the end
        self._ending = self._given_up = self._doubted = False
        self._changed = threading.Condition()
        self._thread = asking(self._run)

    def start(self) -> None:
        self._thread.start()

    def happened(self, event: Event) -> None:
        """An event became durable here."""
        with self._changed:
            match event:
                case EpochReported(verdict="continue" | "pause"):
                    self._running.setdefault(TrialKey(event.number, event.repeat), "")
                case EpochReported() | Pruned() | Failed():
                    self._over.add(TrialKey(event.number, event.repeat))
            self._wanted += 1
            self._changed.notify_all()

    def finish(self, patience: float, at_most: float = math.inf) -> bool:
        """Copy what is left; whether all of it is there.

        Args:
            patience: Seconds in which something must get through.
            at_most: Seconds in all.
        """
        end = time.monotonic() + at_most
        with self._changed:
            self._ending, self._doubted = True, at_most == math.inf
            self._wanted += 1  # files may have changed without an event
            self._changed.notify_all()
            steps = -1
            while self._done != self._wanted and self._steps != steps and time.monotonic() < end:
                steps = self._steps
                left = min(patience, end - time.monotonic())
                self._changed.wait_for(lambda: self._done == self._wanted or self._steps != steps, left)  # noqa: B023
            self._given_up = True
            self._changed.notify_all()
            return self._done == self._wanted

    def _run(self) -> None:
        failures = 0
        while (target := self._next()) is not None:
            try:
                self._copy()
            except Exception as error:  # noqa: BLE001 - pyarrow's and every cloud's own; none may stop the study
                self.problem = str(error)
                if not failures:
                    self._say(f"copy to {self._place.name}: {error}; it is tried again")
                self._rest(_PAUSES[min(failures, len(_PAUSES) - 1)])
                failures += 1
                continue
            if failures:
                self._say(f"copy to {self._place.name}: works again and is up to date")
            failures, self.problem = 0, None
            with self._changed:
                self._done = target
                self._changed.notify_all()

    def _next(self) -> int | None:
        """Waits for a change and gives their number so far; None when the thread is to end."""
        with self._changed:
            self._changed.wait_for(lambda: self._given_up or self._done < self._wanted)
            return None if self._given_up else self._wanted

    def _rest(self, pause: float) -> None:
        with self._changed:
            ending = self._changed.wait_for(lambda: self._ending, pause)
            self._changed.wait_for(lambda: self._given_up, 0.2 if ending else 0)

    def _copy(self) -> None:
        """What matters most first: entries, then small files, then checkpoints, then what only a finished study has."""
        if self._doubted:  # once, in the end: somebody may have emptied the place, or taken its disk away
            self._doubted = False
            self._pieces.forget()
            self._files.clear()
            self._passed.clear()
            self._running = dict.fromkeys(self._running, "")
        self._copy_entries()
        for name in _FILES:
            self._copy_file(name)
        if not self._looked:
            self._over |= self._left_over()
            self._looked = True
        for key in list(self._over):
            (self._place / self._checkpoints(key)).remove()
            self._running.pop(key, None)
            self._over.discard(key)  # only now: a removal that failed is tried again
        for key in list(self._running):
            self._copy_checkpoint(key)
            self._copy_entries()
        if self._ending:
            for path in sorted(path for path in self._paths.final.rglob("*") if path.is_file()):
                self._copy_file(path.relative_to(self._paths.root).as_posix())

    def _left_over(self) -> set[TrialKey]:
        """Ended trials of which the place has checkpoints."""
        there = {name.partition("/")[0] for name in (self._place / self._paths.trials.name).files()}
        ended = (trial.key for trial in list(self._ledger.history.trials.values()) if trial.ended)
        return {key for key in ended if self._paths.trial(*key).name in there}

    def _copy_entries(self) -> None:
        """Also between the parts of a large file, so that no event waits for one."""
        self._pieces.copy(self._ledger.sequence)

    def _got_on(self, *what: object) -> None:
        """Something got through. What does so again and again, because what comes after it never does, counts no more:
        else the end of a session would wait for ever.
        """
        with self._changed:
            if self._ending:
                self._passed[what] += 1
                self._steps += self._passed[what] <= ATTEMPTS
                self._changed.notify_all()

    def _copy_file(self, name: str) -> None:
        try:
            with (self._paths.root / name).open("rb") as stream:
                status = os.fstat(stream.fileno())
                if self._files.get(name) != (status.st_mtime_ns, status.st_size):
                    self._send(name, stream)
                    self._files[name] = (status.st_mtime_ns, status.st_size)
        except FileNotFoundError:
            return

    def _send(self, name: str, stream: IO[bytes]) -> None:
        status, parts = os.fstat(stream.fileno()), count()

        def sent_one() -> None:
            self._got_on(name, status.st_mtime_ns, next(parts))
            self._copy_entries()

        (self._place / name).send(stream, status.st_size, sent_one)

    def _copy_checkpoint(self, key: TrialKey) -> None:
        """The trial's newest checkpoint, its manifest last; the one before it stays until then. An earlier session may
        have carried it already.

        All its files are opened first: what is open stays whole, though newer checkpoints take its place meanwhile.
        """
        folder, before = self._checkpoints(key), self._running.get(key, "")
        newest = max((p.parent.name for p in (self._paths.root / folder).glob(f"[0-9]*/{MANIFEST}")), default="")
        if newest in ("", before):
            return
        there = [] if before else (self._place / folder).files()
        self._got_on("looked", key, newest)
        with ExitStack() as stack:
            try:
                files = sorted((self._paths.root / folder / newest).iterdir(), key=lambda path: path.name == MANIFEST)
                streams = [stack.enter_context(path.open("rb")) for path in files]
            except FileNotFoundError:  # a newer one took its place, or the trial has ended: its event is coming
                return
            if not {f"{newest}/{path.name}" for path in files} <= set(there):
                for path, stream in zip(files, streams, strict=True):
                    self._send(f"{folder}/{newest}/{path.name}", stream)
        for older in {before, *(name.partition("/")[0] for name in there)} - {"", newest}:
            (self._place / f"{folder}/{older}").remove()
        self._running[key] = newest

    def _checkpoints(self, key: TrialKey) -> str:
        return f"{self._paths.checkpoints(*key).relative_to(self._paths.root)}"


class _Pieces:
    """The entries of a growing journal, carried to the place."""

    def __init__(self, path: Path, place: Place, got_on: Callable[..., None]):
        self._journal, self._place, self._got_on = path, place, got_on
        self.forget()

    def forget(self) -> None:
        """Look again what is in the place."""
        self._offset = 0  # of the journal, up to which lines were read
        self._first, self._lines = 0, list[bytes]()  # the piece at hand: entries before it, its own
        self._copied: int | None = None  # entries in the place; not known yet

    def copy(self, upto: int) -> None:
        """Bring the place up to this number of entries; the journal may have more that do not count yet."""
        if self._copied is None:
            self._copied = self._already_there()
        while True:
            self._read(min(upto - self._first, PIECE))
            entries = self._first + len(self._lines)
            if entries > self._copied:
                (self._place / f"events/{self._first // PIECE:06d}.jsonl").write(b"".join(self._lines))
                self._copied = entries
                self._got_on("entries", entries)
            if len(self._lines) < PIECE:
                return
            self._first, self._lines = entries, []

    def _read(self, count: int) -> None:
        """Lines of the journal until the piece has `count`."""
        with self._journal.open("rb") as stream:
            stream.seek(self._offset)
            while len(self._lines) < count:
                self._lines.append(stream.readline())
            self._offset = stream.tell()

    def _already_there(self) -> int:
        """How many entries, from the first on without a gap."""
        there = read_copy(self._place, lambda name: self._got_on("read", name))
        here = {entry.sequence: entry for entry in journal.read_journal(self._journal).entries}
        if any(here.get(entry.sequence) != entry for entry in there):
            raise LedgerError("there is a copy of another study, or of a later state of this one; move it away")
        return next((before for before, entry in enumerate(there) if entry.sequence != before + 1), len(there))

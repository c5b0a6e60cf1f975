"""The desk: an actor beside the driver, for trials on hosts that do not see the run folder.

It lends them what they read (images, weights), piece by piece through Ray's object store, in which nodes pass pieces on
to each other; and it takes back what they leave, checkpoints and log lines, so that the run folder is whole. Hosts that
see the run folder never ask it. What stands at the other end is `outpost.Outpost`.
"""

import shutil
import socket
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np

from search.paths import StudyPaths, is_there
from search.whole_file import flush_folder, sha256, write_fully

PIECE = 32_000_000  # bytes that travel at a time; a node's object store may be small
CALLERS = 16  # answered at once; the others wait their turn
RESTARTS = 100  # it holds nothing that could not be read again
FORGET_SECONDS = 20.0  # for nodes to remove what is left; a node that is just leaving need not


@dataclass(frozen=True)
class Home:
    """Where a study's run folder is, as every trial is told.

    Attributes:
        root: The run folder, on the driver's node.
        sign: A file in it whose name nobody else has: whoever sees it sees the run folder itself, not one like it.
        inputs: Files and folders that trials read.
        study: Names the study among all that a node may meet.
        desk: Name of the actor.
    """

    root: Path
    sign: Path
    inputs: tuple[Path, ...]
    study: str
    desk: str

    @classmethod
    def of(cls, paths: StudyPaths, context: Mapping[str, Any]) -> "Home":
        """For work with this context: all paths in it are inputs, but for those that the work itself makes."""
        own = (paths.trials, paths.scratch)
        inputs = tuple(sorted({path for path in paths_in(context) if not any(map(path.is_relative_to, own))}))
        study = blake2b(f"{socket.gethostname()} {paths.root}".encode(), digest_size=8).hexdigest()
        token = uuid.uuid4().hex
        return cls(paths.root, paths.scratch / f"home-{token}", inputs, study, f"desk-{token}")

    def is_seen(self) -> bool:
        """Whether this host sees the run folder and all inputs."""
        return all(map(is_there, (self.sign, *self.inputs)))


@dataclass(frozen=True)
class InputFile:
    """A file that trials read.

    Attributes:
        name: Relative to the input; empty when the input is a file itself.
        size: In bytes.
        sha256: Hexadecimal.
    """

    name: str
    size: int
    sha256: str


class Stale(Exception):
    """Another worker has taken the trial over since; what this one still has is not wanted."""


class Desk:
    """Lends inputs, keeps checkpoints and logs. Its methods may be called from several threads.

    Args:
        trials: Folder of the trials in the run folder.
        put: Makes something of a piece that a node can get it by: `ray.put`.
    """

    def __init__(self, trials: Path, put: Callable[[np.ndarray], Any]):
        self._trials, self._put = trials, put
        self._inventories: dict[Path, tuple[InputFile, ...]] = {}
        self._lent: dict[tuple[Path, str], list[Any]] = {}
        self._holders: dict[str, str] = {}
        self._progress: tuple[Any, ...] | None = None
        self._busy = Lock()

    def inventory(self, path: Path) -> tuple[InputFile, ...]:
        """What an input consists of."""
        with self._busy:
            if path not in self._inventories:
                files = [path] if path.is_file() else sorted(each for each in path.rglob("*") if each.is_file())
                self._inventories[path] = tuple(_described(path, file) for file in files)
            return self._inventories[path]

    def lend(self, path: Path, name: str) -> list[Any]:
        """The pieces of an input's file, the same for whoever asks."""
        with self._busy:
            if (path, name) not in self._lent:
                self._lent[path, name] = [self._put(piece) for piece in pieces(path / name if name else path)]
            return self._lent[path, name]

    def open(self, trial: str, holder: str) -> dict[str, dict[str, int]]:
        """Let a worker have a trial, from now on it alone; sizes of the files of each of its checkpoints."""
        self._holders[trial] = holder
        return {
            folder.name: {file.name: file.stat().st_size for file in folder.iterdir()}
            for folder in self._checkpoints(trial).glob("[0-9]*")
        }

    def read(self, trial: str, name: str, offset: int) -> bytes:
        """A piece of a checkpoint's file; `name` is `<epoch>/<file>`."""
        with (self._checkpoints(trial) / name).open("rb") as stream:
            stream.seek(offset)
            return stream.read(PIECE)

    def write(self, trial: str, holder: str, name: str, offset: int, content: bytes) -> None:
        """A piece of a checkpoint's file; it counts once the checkpoint is closed.

        Raises:
            Stale: when the trial is another's.
            OSError: when it can't be written.
        """
        path = self._unfinished(trial, holder) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("r+b" if offset else "wb") as stream:
            write_fully(stream.fileno(), content, offset)

    def close(self, trial: str, holder: str, epochs: Sequence[str], log: str) -> None:
        """Let what was written count; of the trial's checkpoints those of these epochs stay.

        Raises:
            Stale: when the trial is another's.
            OSError: when it can't be written.
        """
        unfinished, checkpoints = self._unfinished(trial, holder), self._checkpoints(trial)
        for folder in sorted(unfinished.glob("[0-9]*")):
            flush_folder(folder)
            shutil.rmtree(checkpoints / folder.name, ignore_errors=True)
            folder.rename(checkpoints / folder.name)
        shutil.rmtree(unfinished, ignore_errors=True)
        for folder in checkpoints.glob("[0-9]*"):
            if folder.name not in epochs:
                shutil.rmtree(folder, ignore_errors=True)
        with (self._trials / trial / "log.txt").open("a", encoding="utf-8") as stream:
            stream.write(log)

    def tell(self, *progress: Any) -> None:
        """How far a worker is: what it does, how much of it is done, and how much there is."""
        self._progress = progress

    def told(self) -> tuple[Any, ...] | None:
        """What was told last; None: nothing yet."""
        return self._progress

    def _checkpoints(self, trial: str) -> Path:
        return self._trials / trial / "checkpoint"

    def _unfinished(self, trial: str, holder: str) -> Path:
        """Where the holder writes; after a restart of the desk, whoever writes first is the holder."""
        if self._holders.setdefault(trial, holder) != holder:
            raise Stale(f"trial {trial} runs on another worker now")
        folder = self._checkpoints(trial) / f".{holder}.tmp"
        folder.parent.mkdir(parents=True, exist_ok=True)
        return folder


@contextmanager
def open_desk(home: Home) -> Iterator[Home]:
    """While the block runs, the desk is open on this node of the connected cluster; when it ends well, nothing is left
    of the study on other nodes.
    """
    import ray

    here = ray.get_runtime_context().get_node_id()
    home.sign.parent.mkdir(parents=True, exist_ok=True)
    home.sign.touch()
    options = {"name": home.desk, "max_restarts": RESTARTS, "max_task_retries": -1, "max_concurrency": CALLERS}
    actor: Any = ray.remote(Desk).options(**_on(here), **options).remote(StudyPaths(home.root).trials, ray.put)
    try:
        yield home
        _forget_elsewhere(home, here)
    finally:
        home.sign.unlink(missing_ok=True)
        ray.kill(actor)


def _forget_elsewhere(home: Home, here: str) -> None:
    import ray

    from search.node_folder import forget

    others = [node["NodeID"] for node in ray.nodes() if node["Alive"] and node["NodeID"] != here]
    tasks = [ray.remote(forget).options(**_on(node)).remote(home) for node in others]
    if tasks:
        ray.wait(tasks, num_returns=len(tasks), timeout=FORGET_SECONDS)


def _on(node: str) -> dict[str, Any]:
    """Options of what must run on this node and takes nothing from trials."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return {"num_cpus": 0, "scheduling_strategy": NodeAffinitySchedulingStrategy(node, soft=False)}


def paths_in(value: Any) -> Iterator[Path]:
    """Every path in plain values, however deep."""
    match value:
        case Path():
            yield value
        case Mapping():
            for each in value.values():
                yield from paths_in(each)
        case list() | tuple():
            for each in value:
                yield from paths_in(each)


def pieces(path: Path) -> Iterator[np.ndarray]:
    """The bytes of a file, at most `PIECE` at a time; an empty file is one empty piece."""
    for offset in range(0, max(1, path.stat().st_size), PIECE):
        yield np.fromfile(path, dtype=np.uint8, count=PIECE, offset=offset)


def _described(path: Path, file: Path) -> InputFile:
    name = "" if file == path else str(file.relative_to(path))
    return InputFile(name, file.stat().st_size, sha256(file))

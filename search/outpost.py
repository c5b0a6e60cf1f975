"""The outpost: a worker's copy of what it needs of a run folder that its host does not see.

It lies in the node folder (`THAWLINE_NODE_FOLDER`, by default one under the temporary folder), in which all workers of
a node share what was brought once. Everything that counts goes back to the desk before the driver hears of the epoch it
belongs to, so a host may vanish at any time.
"""

import fcntl
import hashlib
import logging
import os
import shutil
import stat
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from search.desk import Home, InputFile, pieces

FORGET_SECONDS = 5.0  # for workers that are just ending

log = logging.getLogger("thawline.trial")


class OutOfReach(Exception):
    """What a trial needs could not be brought to its host. No trial's fault."""


def on_any_host(trial_class: type) -> type:
    """The same trainable, for workers that may not see the run folder.

    Args:
        trial_class: A Ray class trainable. In its configuration `study` has the `home`, and `trial` a `key`. Its first
            step must need no input, and its checkpoints lie under the `trials` of the run folder.
    """

    class OnAnyHost(trial_class):
        _began = False

        def setup(self, config: dict[str, Any]) -> None:
            home: Home = config["study"]["home"]
            self._outpost = None if home.is_seen() else Outpost(home, Line(home.desk), node_folder())
            super().setup(self._placed(config))

        def reset_config(self, new_config: dict[str, Any]) -> bool:
            return bool(super().reset_config(self._placed(new_config)))

        def step(self) -> dict[str, Any]:
            if self._outpost is None or not self._began:  # the first step only says that the trial has begun
                self._began = True
                return dict(super().step())
            self._outpost.bring()
            result = dict(super().step())
            self._outpost.hand_over()
            return result

        def _placed(self, config: dict[str, Any]) -> dict[str, Any]:
            self._began = False
            if self._outpost is None:
                return config
            self._outpost.take(_trial_name(config["trial"]["key"]))
            return {**config, "study": self._outpost.placed(config["study"])}

    OnAnyHost.__name__ = OnAnyHost.__qualname__ = trial_class.__name__  # as Ray's own displays call it
    return OnAnyHost


class Line:
    """A line to the desk.

    Args:
        name: Of the actor.
    """

    def __init__(self, name: str):
        self._name = name

    def ask(self, method: str, *arguments: Any) -> Any:
        """What a method of the desk returns.

        Raises:
            OSError: when the driver's disk did.
            OutOfReach: when the desk can't be reached, or does not know this worker any more.
        """
        import ray

        with _reached():
            desk = ray.get_actor(self._name)
            return ray.get(getattr(desk, method).remote(*arguments))

    def fetch(self, piece: Any) -> Any:
        """The bytes behind what the desk lent, from whatever node has them.

        Raises:
            OutOfReach: when none has.
        """
        import ray

        with _reached():
            return ray.get(piece)


class Outpost:
    """One worker's part of the node folder of a study.

    Args:
        home: Of the study.
        line: To the desk.
        node: The node folder.
    """

    def __init__(self, home: Home, line: Line, node: Path):
        self._home, self._line = home, line
        self._root = node / home.study
        self._used = _in_use(node, home.study)  # open as long as this process lives
        _remove_abandoned(node, but=home.study)
        self._holder = uuid.uuid4().hex
        self._trial = ""
        self._whole = False  # whether all inputs are here
        self._opened = False  # whether the trial's checkpoints were brought
        self._sent: set[str] = set()
        self._logged = 0

    def placed(self, value: Any) -> Any:
        """The same plain values with every path as it is on this node."""
        match value:
            case Path():
                return self._place(value)
            case Mapping():
                return {name: self.placed(each) for name, each in value.items()}
            case list() | tuple():
                return [self.placed(each) for each in value]
        return value

    def take(self, trial: str) -> None:
        """Turn to a trial; what is here of the one before is not needed any more."""
        if self._trial:
            shutil.rmtree(self._root / "trials" / self._trial, ignore_errors=True)
        self._trial, self._opened, self._sent = trial, False, set()
        self._logged = max(0, _size(self._log))

    def bring(self) -> None:
        """See that inputs and checkpoints of the trial are here, whole.

        Raises:
            OutOfReach: when that can't be had.
        """
        if not self._whole:
            self._bring_inputs()
            self._whole = True
        if not self._opened:
            self._bring_checkpoints()
            self._opened = True

    def hand_over(self) -> None:
        """Give the desk the checkpoints and log lines that it does not have yet; call `bring` before.

        Raises:
            OutOfReach: when the desk can't be reached.
        """
        folder = self._root / "trials" / self._trial / "checkpoint"
        epochs = sorted(path.name for path in folder.glob("[0-9]*"))
        try:
            for path in sorted(
                path for epoch in epochs if epoch not in self._sent for path in (folder / epoch).iterdir()
            ):
                self._send(path, f"{path.parent.name}/{path.name}")
            text = self._new_log()
            self._line.ask("close", self._trial, self._holder, epochs, text.decode(errors="replace"))
            self._sent, self._logged = set(epochs), self._logged + len(text)
        except OSError as error:  # a lost checkpoint costs epochs done again, a failed trial costs the result
            log.warning("the driver could not keep a checkpoint: %s", error)

    @property
    def _log(self) -> Path:
        return self._root / "trials" / self._trial / "log.txt"

    def _place(self, path: Path) -> Path:
        if path in self._home.inputs:
            return self._root / "inputs" / hashlib.sha256(str(path).encode()).hexdigest()[:16] / path.name
        return self._root / path.relative_to(self._home.root) if path.is_relative_to(self._home.root) else path

    def _bring_inputs(self) -> None:
        with _locked(self._root / "inputs.lock"):  # one worker of the node brings, the others find it there
            for path in self._home.inputs:
                for file in self._line.ask("inventory", path):
                    target = self._place(path) / file.name if file.name else self._place(path)
                    if _size(target) != file.size:
                        self._bring_input(path, file, target)

    def _bring_input(self, path: Path, file: InputFile, target: Path) -> None:
        digest = hashlib.sha256()
        with _whole(target) as stream:
            for piece in self._line.ask("lend", path, file.name):
                content = self._line.fetch(piece)
                stream.write(content)
                digest.update(content)
            if digest.hexdigest() != file.sha256:
                raise OutOfReach(f"{path / file.name} must arrive with the sha256 {file.sha256}, but did not")

    def _bring_checkpoints(self) -> None:
        """Those that the desk has; one of a later epoch, left here by a worker that died, counts as well."""
        folder = self._root / "trials" / self._trial / "checkpoint"
        there = self._line.ask("open", self._trial, self._holder)
        for epoch, files in there.items():
            if not (folder / epoch).exists():
                for name, size in sorted(files.items(), key=lambda item: item[0] == "manifest.json"):
                    with _whole(folder / epoch / name) as stream:
                        while stream.tell() < size:
                            stream.write(self._line.ask("read", self._trial, f"{epoch}/{name}", stream.tell()))
        self._sent = set(there)

    def _send(self, path: Path, name: str) -> None:
        offset = 0
        for piece in pieces(path):
            self._line.ask("write", self._trial, self._holder, name, offset, piece.tobytes())
            offset += len(piece)

    def _new_log(self) -> bytes:
        with suppress(FileNotFoundError), self._log.open("rb") as stream:
            stream.seek(self._logged)
            return stream.read()
        return b""


def node_folder() -> Path:
    """Where this node keeps what it was brought, for its own user only.

    Raises:
        OutOfReach: when somebody else has made it.
    """
    named = os.environ.get("THAWLINE_NODE_FOLDER")
    folder = Path(named) if named else Path(tempfile.gettempdir()) / f"thawline-node-{os.getuid()}"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = folder.lstat()
    if found.st_uid != os.getuid() or not stat.S_ISDIR(found.st_mode) or found.st_mode & 0o022:
        raise OutOfReach(f"{folder} must be a folder that only this user can write; set THAWLINE_NODE_FOLDER to one")
    return folder


def forget(home: Home) -> None:
    """Remove what this node has of a study, once its workers are gone."""
    node, end = node_folder(), time.monotonic() + FORGET_SECONDS
    while not _remove_unused(node, home.study) and time.monotonic() < end:
        time.sleep(0.1)


def _remove_abandoned(node: Path, but: str) -> None:
    """Remove what is left of studies whose workers and drivers were killed."""
    for lock in node.glob("*.lock"):
        if lock.stem != but:
            _remove_unused(node, lock.stem)


def _in_use(node: Path, study: str) -> IO[str]:
    """Marks the study's folder as used for as long as the stream is open."""
    stream = (node / f"{study}.lock").open("a")
    fcntl.flock(stream, fcntl.LOCK_SH)
    (node / study).mkdir(exist_ok=True)
    return stream


def _remove_unused(node: Path, study: str) -> bool:
    """Remove the study's folder unless it is used; whether it is gone."""
    with (node / f"{study}.lock").open("a") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        shutil.rmtree(node / study, ignore_errors=True)
        return True


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("a") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


@contextmanager
def _whole(path: Path) -> Iterator[IO[bytes]]:
    """A file that takes its name when it is whole; it need not survive a power cut, which takes the study's folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        with temporary.open("wb") as stream:
            yield stream
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def _reached() -> Iterator[None]:
    from ray.exceptions import RayError

    try:
        yield
    except OSError:  # of the desk's disk, brought here by Ray
        raise
    except (RayError, ValueError) as error:  # ValueError: there is no such actor
        cause = str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
        raise OutOfReach(f"the driver's node must answer, but {cause}") from error


def _trial_name(key: Sequence[int]) -> str:
    number, repeat = key
    return f"{number}.{repeat}" if repeat else str(number)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return -1

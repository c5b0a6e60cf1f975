"""The outpost: a worker's copy of what it needs of a run folder that its host does not see.

It lies in the node folder (`THAWLINE_NODE_FOLDER`, by default one under the temporary folder), in which all workers of
a node share what was brought once. Everything that counts goes back to the desk before the driver hears of the epoch it
belongs to, so a host may vanish at any time.
"""

import errno
import hashlib
import logging
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from search.desk import Home, InputFile, pieces
from search.events import TrialKey
from search.node_folder import OutOfReach, in_use, locked, node_folder, remove_abandoned
from search.paths import MANIFEST, StudyPaths
from search.whole_file import sha256, whole_file

log = logging.getLogger("thawline.trial")


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
            with _room():
                self._outpost = None if home.is_seen() else Outpost(home, Line(home.desk), node_folder())
            super().setup(self._placed(config))

        def reset_config(self, new_config: dict[str, Any]) -> bool:
            return bool(super().reset_config(self._placed(new_config)))

        def step(self) -> dict[str, Any]:
            if self._outpost is None or not self._began:  # the first step only says that the trial has begun
                self._began = True
                return dict(super().step())
            with _room():
                self._outpost.bring()
            result = dict(super().step())
            self._outpost.hand_over()
            return result

        def _placed(self, config: dict[str, Any]) -> dict[str, Any]:
            self._began = False
            if self._outpost is None:
                return config
            self._outpost.take(str(TrialKey(*config["trial"]["key"])))
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
        self._desk: Any = None

    def ask(self, method: str, *arguments: Any) -> Any:
        """What a method of the desk returns.

        Raises:
            OSError: when the driver's disk did.
            OutOfReach: when the desk can't be reached, or does not know this worker any more.
        """
        import ray

        with _reached():
            self._desk = self._desk or ray.get_actor(self._name)  # asked of the head once, not for every piece
            return ray.get(getattr(self._desk, method).remote(*arguments))

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
        self._used = in_use(node, home.study)  # open as long as this process lives
        remove_abandoned(node, but=home.study)
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
            shutil.rmtree(self._folder, ignore_errors=True)
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

    def hand_over(self, *, all_of_it: bool = False) -> None:
        """Give the desk the checkpoints and log lines that it does not have yet; call `bring` before.

        Args:
            all_of_it: Whether nothing may be missing. Else what the desk cannot write is only logged: a lost checkpoint
                costs epochs done again, a failed trial costs the result.

        Raises:
            OutOfReach: when the desk can't be reached.
            OSError: when it can't write, and all must be there.
        """
        folder = self._folder / "checkpoint"
        epochs = sorted(path.name for path in folder.glob("[0-9]*"))
        try:
            for path in sorted(
                path for epoch in epochs if epoch not in self._sent for path in (folder / epoch).iterdir()
            ):
                self._send(path, f"{path.parent.name}/{path.name}")
            text = self._new_log()
            self._line.ask("close", self._trial, self._holder, epochs, text.decode(errors="replace"))
            self._sent, self._logged = set(epochs), self._logged + len(text)
        except OSError as error:
            if all_of_it:
                raise
            log.warning("the driver could not keep a checkpoint: %s", error)

    @property
    def _folder(self) -> Path:
        return StudyPaths(self._root).trials / self._trial

    @property
    def _log(self) -> Path:
        return self._folder / "log.txt"

    def _place(self, path: Path) -> Path:
        if path in self._home.inputs:
            return self._root / "inputs" / hashlib.sha256(str(path).encode()).hexdigest()[:16] / path.name
        return self._root / path.relative_to(self._home.root) if path.is_relative_to(self._home.root) else path

    def _bring_inputs(self) -> None:
        with locked(self._root / "inputs.lock"):  # one worker of the node brings, the others find it there
            mark = self._root / f"{self._home.desk}.compared"
            compared = mark.exists()  # by another worker, in this session
            for path in self._home.inputs:
                for file in self._line.ask("inventory", path):
                    target = self._place(path) / file.name if file.name else self._place(path)
                    # What is there may be what an earlier search of this name left.
                    if _size(target) != file.size or not (compared or sha256(target) == file.sha256):
                        self._bring_input(path, file, target)
            mark.touch()

    def _bring_input(self, path: Path, file: InputFile, target: Path) -> None:
        digest = hashlib.sha256()
        with whole_file(target, durable=False) as stream:
            for piece in self._line.ask("lend", path, file.name):
                content = self._line.fetch(piece)
                stream.write(content)
                digest.update(content)
            if digest.hexdigest() != file.sha256:
                raise OutOfReach(f"{path / file.name} must arrive with the sha256 {file.sha256}, but did not")

    def _bring_checkpoints(self) -> None:
        """Those that the desk has; one of a later epoch, left here by a worker that died, counts as well."""
        folder = self._folder / "checkpoint"
        there = self._line.ask("open", self._trial, self._holder)
        for epoch, files in there.items():
            if not (folder / epoch / MANIFEST).exists():  # it comes last
                for name, size in sorted(files.items(), key=lambda item: item[0] == MANIFEST):
                    with whole_file(folder / epoch / name, durable=False) as stream:
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


@contextmanager
def _room() -> Iterator[None]:
    """A full disk is no trial's fault: another node may have room."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise OutOfReach(f"this node must have room for what a trial needs, but {error}") from error


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


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return -1

"""Whether a file of weights fits its network, found out before any trial."""

import errno
import hashlib
import os
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import suppress
from importlib import metadata
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Self

from trainable.errors import InputError
from trainable.settings import ModelSettings
from trainable.whole_file import sha256


class WeightsCheck:
    """Checks the weights beside other work: that they fit is found out in a process of its own, because it takes
    TensorFlow, which the driver is spared. A file that has fitted once is known by its sha256, and not loaded again.

    Attributes:
        sha256: Of the weights file; None where there is no file.
    """

    def __init__(self, model: ModelSettings, image_size: int):
        self.sha256: str | None = None
        self._problems: list[str] = []
        self._loading: Future[None] | None = None
        if isinstance(model.weights, Path):
            self._check_file(model.weights, model.weights_sha256)
        self._mark = _mark(model.architecture, image_size, self.sha256) if self.sha256 else None
        self._pool = ProcessPoolExecutor(1, get_context("spawn"))
        if not self._problems and model.weights != "random" and not self._known():
            self._loading = self._pool.submit(_load_weights, model.model_dump(), image_size)

    def problems(self) -> list[str]:
        """What is wrong with the weights; waits until that is known."""
        try:
            if self._loading:
                self._loading.result()
                self._remember()
        except InputError as error:
            return [*self._problems, *error.problems]
        return self._problems

    def _known(self) -> bool:
        with suppress(OSError):  # a folder that may not be entered
            return self._mark is not None and self._mark.exists()
        return False

    def _remember(self) -> None:
        with suppress(OSError):  # then it is checked again next time
            if self._mark:
                self._mark.parent.mkdir(parents=True, exist_ok=True)
                self._mark.touch()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        if kind is not None:  # interrupted: TensorFlow's start takes longer than an end may
            for process in list((self._pool._processes or {}).values()):
                process.kill()
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _check_file(self, path: Path, wanted: str | None) -> None:
        try:
            if path.exists() and not path.is_file():
                raise OSError(errno.EINVAL, "not a regular file")  # a named pipe would be waited for
            self.sha256 = sha256(path)
        except OSError as error:
            self._problems = [
                f"model.weights: must be imagenet, random or a readable file, but {path}: {error.strerror}"
            ]
            return
        if wanted and self.sha256 != wanted:
            self._problems = [f"model.weights_sha256: {path} must have the sha256 {wanted}, but has {self.sha256}"]


def cache_folder() -> Path:
    """Ours among the user's caches; it may not be there."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "thawline"


def _mark(architecture: str, image_size: int, weights: str) -> Path:
    """An empty file that says that this file of weights fits this network, to this version of Keras and of us."""
    versions = (metadata.version("keras"), metadata.version("thawline"))
    parts = (weights, architecture, image_size, *versions)
    return cache_folder() / "weights_that_fit" / hashlib.sha256(repr(parts).encode()).hexdigest()


def _load_weights(model: dict[str, Any], image_size: int) -> None:
    from trainable.devices import apply_devices, plan_devices

    apply_devices(plan_devices(1, 0, []))
    from trainable.backbone import check_weights  # TensorFlow starts here, under the limits just set

    check_weights(ModelSettings.model_validate(model), image_size)

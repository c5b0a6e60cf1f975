"""Outputs of the frozen part of a network, computed once per node and shared by all trials.

Below the cut nothing moves, so what it makes of one view of the images is the same for every trial with that cut. It
is kept in a file in the run folder that all workers map into memory (not in shared memory, which containers keep
small): built once under a lock, checked when a process first opens it, dropped when the store grows too large, and safe
to delete at any time. Results are those without the store
(docs/experiments.md has the distances).
"""

import hashlib
import json
import logging
import os
import shutil
import time
import zlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from trainable.whole_file import claim_space, is_locked, locked, whole_file, write_text

log = logging.getLogger("thawline.trial")

CHUNK = 64  # images at a time when a file is built, of large ones fewer; so the same file comes out whoever builds it
# Conservative speeds of a memory map on a warm page cache, bytes per second. Two-core machine, 2026-11: write 1.0e9 to
# 1.6e9, gather 1.5e9 to 3e9.
WRITE_SPEED = 8e8
READ_SPEED = 1.2e9
# Operations per second of one thread and of a GPU: ResNet50's forward pass at 64 px, 0.67 GFLOP, ran at 110 to 120
# images/s per thread on the same machine. No GPU was measured; this is a tenth of what recent ones promise.
CPU_SPEED = 8e10
GPU_SPEED = 1e13
# Bytes of the disk that building leaves to the ledger and to checkpoints.
RESERVE = 10**9
# A view that only other trials may use again is kept where writing costs at most this share of computing it.
AFFORDABLE = 0.03


@dataclass(frozen=True)
class FeatureKey:
    """What a file of features depends on; two keys never share one.

    Attributes:
        identity: Of images, weights, architecture and precision.
        part: Of the split.
        cut: Freeze depth.
        view: What the view depends on: seed, number, strength and transforms; None: images as they are.
        dtype: Of the stored numbers.
    """

    identity: str
    part: str
    cut: int
    view: tuple[Any, ...] | None
    dtype: str

    @property
    def digest(self) -> str:
        """The file's name."""
        return hashlib.blake2b(repr(astuple(self)).encode(), digest_size=16).hexdigest()


class FeatureStore:
    """Files of features in one folder, at most `limit` bytes of them, those being built included; the least recently
    used go.

    Attributes:
        found: How often features were there when asked for.
        built: How often they were not, and were built.
        bytes: What the folder held when this process last used it.
    """

    def __init__(self, folder: Path, limit: int):
        self.folder = folder
        self.limit = limit
        self.found = self.built = self.bytes = 0
        self._checked: set[tuple[str, int]] = set()  # digests and the files that were checked under them

    def has(self, key: FeatureKey) -> bool:
        """Whether the features are there; they may be gone the next moment."""
        return self._file(key).exists()

    def find(self, key: FeatureKey, shape: tuple[int, ...]) -> np.ndarray | None:
        """The features if they are there and whole."""
        return self._open(key, shape) if self.has(key) else None

    def get(self, key: FeatureKey, shape: tuple[int, ...], build: Callable[[np.ndarray], None]) -> np.ndarray | None:
        """The features, [n, ...] as a read-only memory map; built by `build(array)` if they are not there.

        When two workers ask at once, one builds and the other waits. None where they cannot be kept (disk nearly full,
        larger than the limit beside what others are building): compute them then.
        """
        size = int(np.prod(shape)) * np.dtype(key.dtype).itemsize
        if size > self.limit:
            return None
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with locked(self.folder / f"{key.digest}.lock"):
                found = self._open(key, shape)
                if found is None:
                    self._make_room(key, size)
                    self._build(key, shape, build)
                    self.built += 1
                    found = self._open(key, shape)
                else:
                    self.found += 1
            self._trim(self.limit, keep=key.digest)
        except OSError as error:
            log.warning("features at depth %d are not kept: %s", key.cut, error)
            return None
        return found

    def _open(self, key: FeatureKey, shape: tuple[int, ...]) -> np.ndarray | None:
        path = self._file(key)
        try:
            found = np.load(path, mmap_mode="r", allow_pickle=False)
            described = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        except (OSError, ValueError, EOFError):  # an empty file is an EOFError
            return None
        if found.shape != shape or found.dtype != key.dtype:
            return None
        checked = (key.digest, _file_number(path))
        if checked not in self._checked and _checksum(found) != described.get("checksum"):
            log.warning("features at depth %d did not match their checksum and are built again", key.cut)
            return None
        self._checked.add(checked)
        with suppress(OSError):  # another worker may just have dropped it
            os.utime(path)
        return found

    def _build(self, key: FeatureKey, shape: tuple[int, ...], build: Callable[[np.ndarray], None]) -> None:
        path = self._file(key)
        began = time.perf_counter()
        with whole_file(path, durable=False) as temporary:
            array = np.lib.format.open_memmap(temporary, mode="w+", dtype=key.dtype, shape=shape)
            claim_space(temporary)
            build(array)
            described = {"cut": key.cut, "part": key.part, "view": key.view, "checksum": _checksum(array)}
            write_text(path.with_suffix(".json"), json.dumps(described), durable=False)
            made = _file_number(temporary)
        self._checked.add((key.digest, made))
        log.info(
            "features of %s at depth %d: %.0f MB in %.2f s",
            key.part,
            key.cut,
            array.nbytes / 1e6,
            time.perf_counter() - began,
        )

    def _make_room(self, key: FeatureKey, size: int) -> None:
        """Before a file is built, so that the disk never holds more than it may.

        Raises:
            OSError: when there is too little.
        """
        self._remove_unfinished(key)
        self._trim(self.limit - size)
        if self.bytes + size > self.limit:
            raise OSError(
                f"{size / 1e9:.2f} GB are too many beside the {self.bytes / 1e9:.2f} that others are building"
            )
        free = shutil.disk_usage(self.folder).free
        if free < size + RESERVE:
            raise OSError(f"{(size + RESERVE) / 1e9:.2f} GB of the disk must be free, but {free / 1e9:.2f} are")

    def _remove_unfinished(self, key: FeatureKey) -> None:
        """What builders that were killed left: whoever has a file's lock is the only one, and of this one has it."""
        for path in self.folder.glob(".*.tmp*"):
            digest = path.name.split(".")[1]
            if digest == key.digest or not is_locked(self.folder / f"{digest}.lock"):
                path.unlink(missing_ok=True)

    def _trim(self, limit: int, keep: str = "") -> None:
        """Delete the least recently used until so many bytes are left; who has them mapped keeps them."""
        files = sorted(self.folder.glob("[!.]*.npy"), key=_last_used)
        building = sum(_size(path) for path in self.folder.glob(".*.npy"))
        self.bytes = building + sum(_size(path) for path in files)
        for path in files:
            if self.bytes <= limit:
                return
            if path.stem != keep:
                self.bytes -= _size(path)
                path.unlink(missing_ok=True)
                path.with_suffix(".json").unlink(missing_ok=True)

    def _file(self, key: FeatureKey) -> Path:
        return self.folder / f"{key.digest}.npy"


def worth_keeping(
    policy: Literal["off", "auto", "all"], seconds_per_image: float, bytes_per_image: int, sure_of_reuse: bool
) -> bool:
    """Whether features should be kept rather than computed again.

    Args:
        policy: `auto` decides by cost.
        seconds_per_image: To compute the features.
        bytes_per_image: To keep them.
        sure_of_reuse: The same trial will want them again. If not, another trial may, and keeping must cost next to
            nothing.
    """
    if policy != "auto":
        return policy == "all"
    if sure_of_reuse:
        return bytes_per_image / READ_SPEED < seconds_per_image / 2
    return bytes_per_image / WRITE_SPEED < AFFORDABLE * seconds_per_image


def _checksum(array: np.ndarray) -> int:
    checksum = 0
    for start in range(0, len(array), CHUNK):
        checksum = zlib.crc32(np.ascontiguousarray(array[start : start + CHUNK]).view(np.uint8).data, checksum)
    return checksum


def _file_number(path: Path) -> int:
    """Tells a file from another one of the same name; 0 when it has just vanished."""
    try:
        return path.stat().st_ino
    except OSError:
        return 0


def _last_used(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0

"""A training's state on disk, whole or not at all.

A checkpoint is a folder `<epoch>/` with the arrays, the plain values and a manifest of their sizes and sha256. It is
written beside its final name, flushed, and renamed, so a name stands for a whole checkpoint; what the manifest does not
vouch for is passed over. Arrays are `.npz` without pickles: nothing in a checkpoint can be code.
"""

import hashlib
import json
import shutil
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from trainable.whole_file import flush_to_disk

KEPT = 2  # the newest may be damaged; the one before it costs one epoch


@dataclass(frozen=True)
class Checkpoint:
    """State after `epoch` epochs: arrays by name and JSON values."""

    epoch: int
    arrays: Mapping[str, np.ndarray]
    values: Mapping[str, Any]


def save_checkpoint(folder: Path, checkpoint: Checkpoint) -> int:
    """Write a checkpoint and remove all but the newest `KEPT`.

    Returns:
        Bytes written.

    Raises:
        OSError: when it could not be written; earlier checkpoints are untouched.
    """
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f".{checkpoint.epoch}.{uuid.uuid4().hex}.tmp"
    temporary.mkdir()
    try:
        with (temporary / "arrays.npz").open("wb") as stream:
            named: Any = {name.replace("/", "|"): array for name, array in checkpoint.arrays.items()}
            np.savez(stream, **named)
        (temporary / "values.json").write_text(json.dumps(dict(checkpoint.values)), encoding="utf-8")
        manifest = {path.name: _fingerprint(path) for path in sorted(temporary.iterdir())}
        (temporary / "manifest.json").write_text(json.dumps(manifest, indent=1), encoding="utf-8")
        for path in (*temporary.iterdir(), temporary):
            flush_to_disk(path)
        final = folder / f"{checkpoint.epoch:06d}"
        shutil.rmtree(final, ignore_errors=True)  # only ever one that is damaged or of an epoch done again
        temporary.rename(final)
        flush_to_disk(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    _remove_old(folder)
    return sum(entry["bytes"] for entry in manifest.values())


def load_checkpoint(folder: Path) -> Checkpoint | None:
    """The newest checkpoint that is whole; None when there is none."""
    for path in reversed(_finished(folder)):
        checkpoint = _load(path)
        if checkpoint:
            return checkpoint
    return None


def _load(path: Path) -> Checkpoint | None:
    try:
        manifest = json.loads((path / "manifest.json").read_text(encoding="utf-8"))
        if any(_fingerprint(path / name) != manifest[name] for name in ("arrays.npz", "values.json")):
            return None
        with np.load(path / "arrays.npz", allow_pickle=False) as stored:
            arrays = {name.replace("|", "/"): stored[name] for name in stored.files}
        return Checkpoint(int(path.name), arrays, json.loads((path / "values.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _finished(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.name.isdigit())


def _remove_old(folder: Path) -> None:
    for path in _finished(folder)[:-KEPT]:
        shutil.rmtree(path, ignore_errors=True)
    for path in folder.glob(".*.tmp"):  # left by a process that was killed while writing; one writer at a time
        shutil.rmtree(path, ignore_errors=True)


def _fingerprint(path: Path) -> dict[str, Any]:
    with path.open("rb") as stream:
        return {"bytes": path.stat().st_size, "sha256": hashlib.file_digest(stream, "sha256").hexdigest()}

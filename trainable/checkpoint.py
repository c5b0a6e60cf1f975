"""A training's state on disk, whole or not at all.

A checkpoint is a folder `<epoch>/` with the arrays, the plain values and a manifest: whose it is, and the sizes and
sha256 of its files. It is written beside its final name, flushed, and renamed, so a name stands for a whole checkpoint;
what the manifest does not vouch for is passed over. Arrays are `.npz` without pickles: nothing in a checkpoint can be
code. docs/checkpoints.md says which are kept and how to go on from one.
"""

import json
import logging
import shutil
import zipfile
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from trainable.whole_file import remove_unfinished, sha256, whole_folder

NEWEST = 2  # the newest may be damaged; the one before it costs one epoch

log = logging.getLogger("thawline.trial")


@dataclass(frozen=True)
class Checkpoint:
    """State after `epoch` epochs: arrays by name and JSON values."""

    epoch: int
    arrays: Mapping[str, np.ndarray]
    values: Mapping[str, Any]


@dataclass(frozen=True)
class Checkpoints:
    """The checkpoints of one training.

    Attributes:
        folder: Holds a folder for each epoch that is kept; one process at a time writes to it.
        owner: Whose training this is; checkpoints of another one are passed over, however whole they are.
    """

    folder: Path
    owner: str

    def save(self, checkpoint: Checkpoint, kept: Collection[int] = (), durable: bool = True) -> int:
        """Write a checkpoint and remove all but the `NEWEST` newest and some others; those of later epochs too, which
        the training cannot have gone on from.

        Args:
            checkpoint: What to write.
            kept: Epochs whose checkpoints stay as well.
            durable: Whether it must survive a power cut; a killed process never costs it.

        Returns:
            Bytes written.

        Raises:
            OSError: when it could not be written; earlier checkpoints are untouched.
        """
        remove_unfinished(self.folder)
        with whole_folder(self.folder / f"{checkpoint.epoch:06d}", durable) as temporary:
            with (temporary / "arrays.npz").open("wb") as stream:
                named: Any = {name.replace("/", "|"): array for name, array in checkpoint.arrays.items()}
                np.savez(stream, **named)
            (temporary / "values.json").write_text(json.dumps(dict(checkpoint.values)), encoding="utf-8")
            files = {path.name: _fingerprint(path) for path in sorted(temporary.iterdir())}
            manifest = {"owner": self.owner, "files": files}
            (temporary / "manifest.json").write_text(json.dumps(manifest, indent=1), encoding="utf-8")
        finished = {int(path.name): path for path in self._finished()}
        newest = [epoch for epoch in finished if epoch <= checkpoint.epoch][-NEWEST:]
        for epoch in finished.keys() - {*newest, *kept}:
            shutil.rmtree(finished[epoch], ignore_errors=True)
        return sum(entry["bytes"] for entry in files.values())

    def load(self) -> Checkpoint | None:
        """The newest checkpoint that is whole; None when there is none. What is passed over is logged."""
        for path in reversed(self._finished()):
            try:
                return _load(path, self.owner)
            except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
                log.warning("the checkpoint after epoch %d is passed over: %s", int(path.name), error)
        return None

    def _finished(self) -> list[Path]:
        if not self.folder.is_dir():
            return []
        return sorted(path for path in self.folder.iterdir() if path.name.isdigit())


def _load(path: Path, owner: str) -> Checkpoint:
    """Raises one of several errors when the checkpoint is not whole or not the owner's."""
    manifest = json.loads((path / "manifest.json").read_text(encoding="utf-8"))
    if manifest["owner"] != owner:
        raise ValueError("it is of another training")
    damaged = [name for name in ("arrays.npz", "values.json") if _fingerprint(path / name) != manifest["files"][name]]
    if damaged:
        raise ValueError(f"{', '.join(damaged)} must be as the manifest says, but is not")
    with np.load(path / "arrays.npz", allow_pickle=False) as stored:
        arrays = {name.replace("|", "/"): stored[name] for name in stored.files}
    return Checkpoint(int(path.name), arrays, json.loads((path / "values.json").read_text(encoding="utf-8")))


def _fingerprint(path: Path) -> dict[str, Any]:
    return {"bytes": path.stat().st_size, "sha256": sha256(path)}

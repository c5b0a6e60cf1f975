"""The Ray Trainable: a warm worker that runs trial after trial, an epoch a step.

A worker keeps what is costly to make: TensorFlow, the backbone, one network per (depth, head, optimizer), the images.
A new trial resets values. What it finds under its own number it continues, so a retry, a lost node and a resumed
driver are one code path.
"""

import hashlib
import json
import logging
import os
import socket
import time
import traceback
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray import tune

from trainable.checkpoint import Checkpoints
from trainable.children import adopt_orphans, end_children
from trainable.errors import TrialError
from trainable.memory import fair_share, is_out_of_memory, own_bytes
from trainable.saving import Saving
from trainable.workshop import Workshop

MESSAGE = "thawline"  # holds a list of one message, because Tune flattens dictionaries
TRIALS_PER_WORKER = 500  # then a fresh process takes over, whatever leaks

log = logging.getLogger("thawline.trial")


class ImageTrial(tune.Trainable):
    """Runs the trial its configuration describes: `{"study": context, "trial": request}` as plain values."""

    def setup(self, config: dict[str, Any]) -> None:
        self._workshop: Workshop | None = None
        self._wear = Wear()
        self._at_work: tuple[list[int], Saving, Any] | None = None  # the trial's key, and its training
        adopt_orphans()
        self._begin(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        end_children()
        self._leave([*new_config.get("waiting", ()), new_config["trial"]["key"]])
        reason = self._wear.reason(own_bytes(), fair_share(new_config["study"]["cpus"]))
        if reason:
            log.info("this worker ends, so that a fresh one takes over: %s", reason)
            os._exit(0)  # the trial is asked for again, elsewhere; nothing of it has begun
        self._begin(new_config)
        return True

    def step(self) -> dict[str, Any]:
        """The next message: started, an epoch, or failed."""
        try:
            return {MESSAGE: [next(self._messages)]}
        except OutOfMemory as error:
            return {MESSAGE: [_failure(str(error), infeasible=True)]}
        except TrialError as error:
            return {MESSAGE: [_failure(str(error))]}
        except Exception as error:  # noqa: BLE001 - whatever one configuration does must not end the search
            log.error("trial failed\n%s", traceback.format_exc())
            return {MESSAGE: [_failure(f"{type(error).__name__}: {error}")]}

    def _leave(self, wanted: Collection[list[int]]) -> None:
        """Save the last trial if it is one of those that are to go on: they wait for it, or it comes now."""
        if self._at_work and list(self._at_work[0]) in wanted:
            _, saving, training = self._at_work
            saving.pause(training)
        self._at_work = None

    def _begin(self, config: dict[str, Any]) -> None:
        self._messages = self._run(config["study"], config["trial"])

    def _run(self, study: Mapping[str, Any], request: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        began = time.perf_counter()
        folder = trial_folder(study, request["key"])
        _log_to(folder / "log.txt")
        log.info(
            "trial %s on %s, process %d: %s", folder.name, socket.gethostname(), os.getpid(), request["parameters"]
        )
        yield {"kind": "started", "worker": f"{socket.gethostname()}/{os.getpid()}"}
        self._wear.trials += 1
        reported = request["epochs_reported"]
        for pieces in (1, 2):
            try:
                for message in self._epochs(study, {**request, "epochs_reported": reported}, began, pieces):
                    reported = max(reported, message["epoch"])
                    yield message
                return
            except Exception as error:
                workshop = self._workshop
                if not is_out_of_memory(error):
                    raise
                self._wear.memory_ran_out = True
                if workshop is None:  # no fault of the configuration
                    raise
                if pieces > 1:
                    raise OutOfMemory(
                        f"a batch of {workshop.chosen(request).batch_size} must fit into memory, "
                        f"but even half of it did not in epoch {reported + 1}"
                    ) from error
            log.warning("out of memory in epoch %d: batches are now computed in halves", reported + 1)
            self._at_work = None
            workshop.clear()  # only here is the error gone, and with it what it held of the network
            began = time.perf_counter()

    def _epochs(
        self, study: Mapping[str, Any], request: Mapping[str, Any], began: float, pieces: int
    ) -> Iterator[dict[str, Any]]:
        """Messages of the epochs that were not reported yet, the trial set up before; `began` is when that did."""
        if self._workshop is None:
            self._workshop = Workshop(study)
        training, saving = self._taken_up(self._workshop, study, request, pieces)
        for row in training.history[request["epochs_reported"] :]:
            metrics = {name: value for name, value in row.items() if name != "epoch"}
            yield _epoch(row["epoch"], metrics, {}, {}, last=row["epoch"] >= request["epochs"])
        setup = time.perf_counter() - began
        while training.epoch < request["epochs"]:
            result = training.run_epoch()
            saved = time.perf_counter()
            saving.after(training, result)
            seconds = {**result.seconds, "checkpoint": time.perf_counter() - saved, "setup": setup}
            setup = 0.0
            log.info("epoch %d: %s; seconds: %s", result.epoch, _short(result.metrics), _short(seconds))
            yield _epoch(result.epoch, result.metrics, seconds, self._workshop.usage(), result.last)

    def _taken_up(
        self, workshop: Workshop, study: Mapping[str, Any], request: Mapping[str, Any], pieces: int
    ) -> tuple[Any, Saving]:
        """The trial's training, continued from its own checkpoint where there is one, and when it is to be saved."""
        training = workshop.training(request, pieces)
        checkpoints = Checkpoints(trial_folder(study, request["key"]) / "checkpoint", owner(study, request))
        checkpoint = checkpoints.load()
        if checkpoint:
            training.restore(checkpoint)
            log.info("continuing after epoch %d", checkpoint.epoch)
        elif request["epochs_reported"]:
            log.warning("no checkpoint is left of %d epochs: they are done again", request["epochs_reported"])
        saving = _saving(study, checkpoints, checkpoint.epoch if checkpoint else None)
        self._at_work = (request["key"], saving, training)
        return training, saving

    def cleanup(self) -> None:
        end_children()
        _log_to(None)


class OutOfMemory(TrialError):
    """A configuration does not fit into the memory there is, even with halved batches."""


@dataclass
class Wear:
    """When a worker should make room for a fresh one."""

    trials: int = 0
    memory_ran_out: bool = False

    def reason(self, own: int, share: int) -> str | None:
        """Why this worker should end before its next trial; None while it is good.

        Args:
            own: Bytes of memory that are this process's alone.
            share: Bytes of the machine's memory that are fairly its own.
        """
        if self.memory_ran_out:
            return "memory ran out in its last trial"
        if own > share:
            return f"it has {own / 1e9:.1f} GB of memory, its share is {share / 1e9:.1f} GB"
        if self.trials >= TRIALS_PER_WORKER:
            return f"it has run {self.trials} trials"
        return None


def trial_folder(study: Mapping[str, Any], key: tuple[int, int]) -> Path:
    """Folder of a trial, or of its rerun: `7`, `7.1` and so on."""
    number, repeat = key
    trials: Path = study["trials"]
    return trials / (f"{number}.{repeat}" if repeat else str(number))


def owner(study: Mapping[str, Any], request: Mapping[str, Any]) -> str:
    """Whose a checkpoint is: all that a trial's weights follow from, as sha256."""
    parts = [study["identity"], study["training"], *(request[name] for name in ("key", "parameters", "seed"))]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _epoch(
    epoch: int, metrics: Mapping[str, float], seconds: Mapping[str, float], usage: Mapping[str, float], last: bool
) -> dict[str, Any]:
    figures = {"metrics": dict(metrics), "seconds": dict(seconds), "usage": dict(usage)}
    return {"kind": "epoch", "epoch": epoch, **figures, "last": last}


def _failure(reason: str, infeasible: bool = False) -> dict[str, Any]:
    return {"kind": "failed", "reason": reason[:2000], "infeasible": infeasible}


def _saving(study: Mapping[str, Any], checkpoints: Checkpoints, since: int | None) -> Saving:
    # Most trials are pruned at a rung or go on at once, so one that waits there is saved when its worker leaves it. Not
    # where a checkpoint must be brought home to the run folder, which is done with an epoch.
    pauses = study.get("pauses", ()) if "home" in study else ()
    every, seconds = study.get("checkpoint_every", 1), study.get("checkpoint_seconds", 0.0)
    return Saving(checkpoints, every, seconds, pauses, study.get("keeps_best", False), since)


def _short(values: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in values.items())


def _log_to(path: Path | None) -> None:
    """Direct the trial's log into its own file; None, or where no file can be made: nowhere."""
    for handler in list(log.handlers):
        log.removeHandler(handler)
        handler.close()
    if path is None:
        return
    log.setLevel(logging.INFO)
    log.propagate = False
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handler = logging.FileHandler(path, encoding="utf-8")
    except OSError:  # a full disk, which may have room again before the trial has ended
        return
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    log.addHandler(handler)

"""When a training's state is written, and how surely: where it may have to go on from, and no more often than asked."""

import logging
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from trainable.checkpoint import Checkpoint, Checkpoints

if TYPE_CHECKING:
    from trainable.training import EpochResult, Training

FLUSH_SECONDS = 60.0  # of training that a power cut may cost a trial

log = logging.getLogger("thawline.trial")


@dataclass
class Saving:
    """Writes checkpoints of one training.

    ResNet50 with Adam's moments is 283 MB at depth 0, and an epoch may take seconds. So the best epoch's state, which
    is wanted only of a trial that completes, is held in memory until one is written anyway; a trial that is cut off
    before does that epoch again. The disk is waited for once in `FLUSH_SECONDS` of training, and for the last one.

    Attributes:
        every: Epochs between checkpoints.
        seconds: Of training between checkpoints, at least.
        pauses: Epochs after which the trial may have to wait and must then find one.
        keeps_best: A checkpoint of the best epoch is wanted at the end, and none of the last one unless it is the best.
        flushed: The newest epoch whose checkpoint is known to survive a power cut, or, of a training that was taken up
            again, the one that it went on from.
    """

    checkpoints: Checkpoints
    every: int = 1
    seconds: float = 0.0
    pauses: Collection[int] = ()
    keeps_best: bool = False
    flushed: int | None = None
    _held: Checkpoint | None = field(default=None, init=False)
    _written: int | None = field(default=None, init=False)
    _unwritten_seconds: float = field(default=0.0, init=False)
    _unflushed_seconds: float = field(default=0.0, init=False)

    def after(self, training: "Training", result: "EpochResult") -> None:
        """Write what is due after this epoch, before anybody hears of it."""
        trained = result.seconds.get("train", 0.0) + result.seconds.get("validation", 0.0)
        self._unwritten_seconds += trained
        self._unflushed_seconds += trained
        if self.keeps_best and training.best_epoch == result.epoch:
            self._held = training.checkpoint()
        if result.last:
            if self._held:
                self._write(self._held, training, durable=True)
        elif result.epoch in self.pauses or (
            result.epoch % self.every == 0 and self._unwritten_seconds >= self.seconds
        ):
            self.pause(training)

    def pause(self, training: "Training") -> None:
        """Write the state that a trial is to go on from, if it is not there yet."""
        if self._written == training.epoch:
            return
        held, self._held = self._held, None
        if held:
            self._write(held, training)
        if not (held and held.epoch == training.epoch):
            self._write(training.checkpoint(), training)

    def _write(self, checkpoint: Checkpoint, training: "Training", durable: bool = False) -> None:
        durable = durable or self._unflushed_seconds >= FLUSH_SECONDS
        wanted = (training.best_epoch if self.keeps_best else None, self.flushed)
        kept = [epoch for epoch in wanted if epoch is not None]
        self._written = checkpoint.epoch
        try:
            self.checkpoints.save(checkpoint, kept, durable)
        except OSError as error:  # a lost checkpoint costs epochs done again, a failed trial costs the result
            log.warning("no checkpoint after epoch %d: %s", checkpoint.epoch, error)
            return
        self._unwritten_seconds = 0.0
        if durable:
            self.flushed, self._unflushed_seconds = checkpoint.epoch, 0.0

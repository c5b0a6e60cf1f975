"""What a trial's epochs and checkpoints cost on a GPU, from what was measured and counted for ResNet50.

Assumptions, not measurements: a GPU that does 10 TFLOP/s of a ResNet's work, 20,000 training and 4,000 validation
images of 224 pixels, nothing kept of frozen parts. Ratios between depths and batch sizes are counted (work per image)
and measured (what a step costs beside its images).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

SIDE = 64  # pixels at which the work below was counted; it grows with their square
TRAINING = (1.89e9, 1.85e9, 1.63e9, 1.32e9, 0.87e9, 0.63e9)  # FLOP per training image, by freeze depth
FORWARD = 0.63e9  # FLOP per validation image
STEP = 7.8  # images that a step costs beside its own: 73 images/s at batch 32 and 81 at batch 64
TRAINED = (23.6e6, 23.59e6, 23.37e6, 22.13e6, 15.0e6, 2.0e3)  # weights that train, by freeze depth
BYTES_PER_WEIGHT = 12  # itself and Adam's two moments, float32


@dataclass(frozen=True)
class Cost:
    """Seconds and bytes of ResNet50 trials.

    Attributes:
        training_images: Per epoch.
        validation_images: Per epoch.
        side: Of an image, in pixels.
        speed: Of a worker's device, in FLOP/s that it really does.
        factor: All epochs so much longer.
    """

    training_images: int = 20_000
    validation_images: int = 4_000
    side: int = 224
    speed: float = 1e13
    factor: float = 1.0

    def epoch_seconds(self, parameters: Mapping[str, Any]) -> float:
        """Training and validation of one epoch, its graphs traced already."""
        training = self.training_images * TRAINING[parameters["freeze_depth"]] * (1 + STEP / parameters["batch_size"])
        work = (training + self.validation_images * FORWARD) * (self.side / SIDE) ** 2
        return self.factor * work / self.speed


def checkpoint_bytes(freeze_depth: int) -> float:
    """Of a checkpoint: the weights that train, and the optimizer's moments."""
    return TRAINED[freeze_depth] * BYTES_PER_WEIGHT

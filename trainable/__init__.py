"""Runs one network: images, pre-trained backbone, training, evaluation. Knows nothing of a search."""

from trainable.errors import DeploymentError, InputError, TrialError
from trainable.image_trainable import ImageTrainable

__all__ = ["DeploymentError", "ImageTrainable", "InputError", "TrialError"]

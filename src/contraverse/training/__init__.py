"""Training: the step that drives a method, and Hugging Face's trainer around it."""

from contraverse.training.callbacks import Progress, StopOnInterrupt, read_metrics
from contraverse.training.checkpoints import Torn, remove_all
from contraverse.training.finite import Diverged
from contraverse.training.step import step
from contraverse.training.trainer import DEFAULTS, Trainer

__all__ = [
    "DEFAULTS",
    "Diverged",
    "Progress",
    "StopOnInterrupt",
    "Torn",
    "Trainer",
    "read_metrics",
    "remove_all",
    "step",
]

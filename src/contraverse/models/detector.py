"""The decision of a detector: a threshold on the score of one class, saved with its model."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from scipy.special import expit
from torch import Tensor

from contraverse.errors import UserError, unknown
from contraverse.models.folders import SETTINGS
from contraverse.writing import write_json


def log_odds(logits: np.ndarray, positive: int) -> np.ndarray:
    """Log-odds (N,) float64 of one class against all others, log p / (1 - p) of its softmax.

    They rank rows as the probability does, without the ties that it has near 0 and 1.

    Args:
        logits: (N, C), C >= 2.
        positive: id of the class.
    """
    logits = np.asarray(logits, dtype=np.float64)
    others = np.delete(logits, positive, axis=1)  # (N, C - 1)
    return np.asarray(logits[:, positive] - np.logaddexp.reduce(others, axis=1))


def class_id(positive: str, labels: Sequence[str] | None, where: str | None = None) -> int:
    """Id of the class called ``positive``.

    Raises:
        UserError: the model has no such class, or none at all.
    """
    if labels is None or len(labels) < 2:
        raise UserError("a detector is a classifier, and this model has no classes", where=where)
    if positive not in labels:
        raise unknown("class", positive, labels, where=where)
    return list(labels).index(positive)


class Detector(BaseModel):
    """Threshold on the log-odds of a class: a row at it or above is detected.

    Attributes:
        positive: class that is detected.
        log_odds: threshold, of any sign.
        false_positive_rate: percent of the benign rows that were to be detected at most when it was chosen;
            None of a threshold that was set by hand.
        benign_rows: number of benign rows that it was chosen on.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    positive: str
    log_odds: float
    false_positive_rate: float | None = Field(default=None, gt=0, lt=100)
    benign_rows: int = Field(default=0, ge=0)

    @property
    def threshold(self) -> float:
        """Probability of the class from which on a row is detected, inside of (0, 1) as floats have it."""
        return float(np.clip(expit(self.log_odds), np.finfo(float).tiny, np.nextafter(1.0, 0.0)))

    def detects(self, logits: np.ndarray, labels: Sequence[str]) -> np.ndarray:
        """Rows (N,) bool of ``logits`` (N, C) that are detected; ``labels`` names the classes."""
        return log_odds(logits, class_id(self.positive, labels)) >= self.log_odds

    def decide(self, logits: np.ndarray, labels: Sequence[str]) -> np.ndarray:
        """Class (N,) of each row: the positive one where it is detected, else the most probable of the others."""
        others = np.array(logits, dtype=np.float64)
        others[:, class_id(self.positive, labels)] = -np.inf
        return np.where(self.detects(logits, labels), class_id(self.positive, labels), others.argmax(1))

    def decide_tensor(self, logits: Tensor, labels: Sequence[str]) -> Tensor:
        """`decide` on the device, (B,) of ``logits`` (B, C); nothing waits for it."""
        positive, logits = class_id(self.positive, labels), logits.double()
        others = logits.clone()
        others[:, positive] = -torch.inf
        detected = logits[:, positive] - others.logsumexp(1) >= self.log_odds  # (B,)
        return torch.where(detected, positive, others.argmax(1))


def save_detector(detector: Detector, folder: Path) -> None:
    """Add ``detector`` to the settings of the saved model in ``folder``; its weights are not written again."""
    settings = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
    write_json(folder / SETTINGS, {**settings, "detector": detector.model_dump()})

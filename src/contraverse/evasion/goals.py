"""Goals of an attack on a classifier: another class, or one class's score below a threshold."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from contraverse.errors import UserError


@dataclass(frozen=True)
class Goal:
    """States when a text evades the classifier, and how far a text is from it.

    Without ``against`` a row is broken when its class is no longer the one of the largest score (untargeted). With it,
    rows of that class alone are attacked, and one is broken when the class is missed: another has the largest score, or
    where there is a ``threshold``, the softmax of the class is below it.

    Args:
        against: id of the class to evade, or None.
        threshold: least probability of that class at which it counts as detected, above 0 and below 1.

    Raises:
        UserError: a threshold without a class, or out of its range.
    """

    against: int | None = None
    threshold: float | None = None

    def __post_init__(self) -> None:
        if self.threshold is not None and self.against is None:
            raise UserError("a threshold belongs to a class", hint="name the class to evade")
        if self.threshold is not None and not 0 < self.threshold < 1:
            raise UserError(f"a threshold lies between 0 and 1, not {self.threshold}")

    def margins(self, scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """Give how far each row (N,) is from being broken, in logits: negative where it is.

        The label's logit less the largest other; with a threshold the log-odds of the class less the threshold's. On
        logits and not on probabilities, which for a sure classifier are all equal to the last digit.

        Args:
            scores: (N, C) logits, or log-probabilities.
            labels: (N,) class ids.
        """
        scores = np.asarray(scores, dtype=np.float64)
        rows = np.arange(len(scores))
        others = scores.copy()
        others[rows, labels] = -np.inf
        if self.threshold is None:
            return np.asarray(scores[rows, labels] - others.max(1))
        odds = scores[rows, labels] - np.logaddexp.reduce(others, axis=1)
        return np.asarray(odds - math.log(self.threshold / (1 - self.threshold)))

    def holds(self, scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """Tell which rows (N,) are still classified rightly: detected, where there is a class to evade."""
        if self.threshold is None:
            return np.asarray(np.asarray(scores).argmax(1) == labels)
        return self.margins(scores, labels) >= 0

    def wants(self, labels: np.ndarray) -> np.ndarray:
        """Tell which rows (N,) are attacked if they are classified rightly."""
        return np.ones(len(labels), dtype=bool) if self.against is None else labels == self.against

    def tensor_margins(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Give `margins` (B,) of logits (B, C) with a gradient; without the threshold's constant."""
        own = logits.gather(1, labels.unsqueeze(1)).squeeze(1)
        others = logits.scatter(1, labels.unsqueeze(1), -torch.inf)
        return own - (others.amax(1) if self.threshold is None else others.logsumexp(1))

"""Results by class and by row: where a classifier is wrong, clean and under attack."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import softmax

from contraverse.evaluation.robustness import RobustReport

MOST_ROWS = 10
"""Rows that are listed of each kind."""


@dataclass(frozen=True)
class Confusion:
    """Counts of rows by class and predicted class. ``epsilon``: radius of the attack; None for clean rows.

    ``counts``: (C, C) int, the true class down and the predicted one across.
    """

    epsilon: float | None
    counts: np.ndarray

    @classmethod
    def of(cls, labels: np.ndarray, predicted: np.ndarray, classes: int, epsilon: float | None = None) -> "Confusion":
        """The counts of classes ``labels`` (N,) and ``predicted`` (N,), of which there are ``classes``."""
        counts = np.zeros((classes, classes), dtype=np.int64)
        np.add.at(counts, (labels, predicted), 1)
        return cls(epsilon, counts)

    def to_dict(self) -> dict[str, Any]:
        """Values for JSON: the cells that are not 0, as [class, predicted class, rows]."""
        cells = [[int(i), int(j), int(self.counts[i, j])] for i, j in np.argwhere(self.counts)]
        return {"epsilon": self.epsilon, "cells": cells}


@dataclass(frozen=True)
class RowResult:
    """One row: its number in the data, classes, and the model's softmax probability of the clean prediction.

    ``epsilon``: smallest radius at which it broke, and ``attacked`` the class predicted there; None where it did not.
    """

    row: int
    label: int
    predicted: int
    confidence: float
    epsilon: float | None = None
    attacked: int | None = None


@dataclass(frozen=True)
class Breakdown:
    """Where a classifier is wrong.

    Attributes:
        names: of the classes.
        confusions: clean first, then at each radius, rising.
        mistakes: rows that are wrong without an attack, the most confident prediction first.
        fragile: rows that are right and broke, at the smallest radius first, among these the most confident one.
    """

    names: tuple[str, ...]
    confusions: tuple[Confusion, ...]
    mistakes: tuple[RowResult, ...]
    fragile: tuple[RowResult, ...]

    def to_dict(self) -> dict[str, Any]:
        """Values for JSON, classes by name."""

        def row(result: RowResult) -> dict[str, Any]:
            values: dict[str, Any] = {
                "row": result.row,
                "label": self.names[result.label],
                "predicted": self.names[result.predicted],
                "confidence": round(result.confidence, 4),
            }
            if result.attacked is not None:
                values |= {"epsilon": result.epsilon, "attacked": self.names[result.attacked]}
            return values

        return {
            "names": list(self.names),
            "confusions": [confusion.to_dict() for confusion in self.confusions],
            "mistakes": [row(result) for result in self.mistakes],
            "fragile": [row(result) for result in self.fragile],
        }


def breakdown(
    logits: np.ndarray,
    labels: np.ndarray,
    names: Sequence[str],
    report: RobustReport | None = None,
    *,
    count: int = MOST_ROWS,
) -> Breakdown:
    """Confusion matrices, the most confident mistakes and the most fragile rows.

    Args:
        logits: (N, C) without an attack.
        labels: (N,) classes 0 .. C-1.
        names: of the C classes.
        report: of an attack on the same rows.
        count: largest number of rows of each kind.
    """
    predicted, classes = logits.argmax(1), logits.shape[1]  # (N,)
    confidence = softmax(logits.astype(np.float64), axis=1).max(1)  # (N,)
    confusions = [Confusion.of(labels, predicted, classes)]
    broke = np.full(len(labels), np.inf)
    attacked = predicted
    for epsilon, at in (report.at if report else {}).items():
        confusions.append(Confusion.of(labels, at.predicted, classes, epsilon))
        newly = np.isinf(broke) & (predicted == labels) & ~at.correct
        broke, attacked = np.where(newly, epsilon, broke), np.where(newly, at.predicted, attacked)

    def result(row: int) -> RowResult:
        values = row, int(labels[row]), int(predicted[row]), float(confidence[row])
        return RowResult(*values, float(broke[row]), int(attacked[row])) if broke[row] < np.inf else RowResult(*values)

    wrong, fragile = np.flatnonzero(predicted != labels), np.flatnonzero(broke < np.inf)
    wrong = wrong[np.argsort(-confidence[wrong], kind="stable")][:count]
    fragile = fragile[np.lexsort((-confidence[fragile], broke[fragile]))][:count]
    return Breakdown(
        tuple(names), tuple(confusions), tuple(map(result, wrong.tolist())), tuple(map(result, fragile.tolist()))
    )

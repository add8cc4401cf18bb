"""Figures by class: confusion matrix, accuracy of each class, and the pairs that are confused most often."""

from collections.abc import Mapping, Sequence
from statistics import median_low
from typing import Any, NamedTuple

import numpy as np

from contraverse.attacks import attack_label
from contraverse.reporting.data import ReportData
from contraverse.reporting.names import MISSING, heading
from contraverse.reporting.sections import Section, draw
from contraverse.units import shown

MOST_IN_MATRIX, MOST_CLASSES, MOST_PAIRS = 12, 20, 10
"""Classes that a matrix is drawn of, rows of the table of classes, and confused pairs that are listed."""


class Matrix(NamedTuple):
    """Counts (C, C) of rows by class and predicted class, clean or under an attack of a radius."""

    epsilon: float | None
    counts: np.ndarray

    @property
    def title(self) -> str:
        """ "Clean", or the radius."""
        return "Clean" if self.epsilon is None else f"ε={shown(self.epsilon)}"

    def accuracy(self, i: int) -> str:
        """Percent of the rows of class ``i`` that are right, as printed."""
        rows = int(self.counts[i].sum())
        return f"{100 * self.counts[i, i] / rows:.1f}" if rows else MISSING


def matrices(breakdown: Mapping[str, Any]) -> list[Matrix]:
    """The matrices of a `Breakdown.to_dict`: clean first, then by radius."""
    classes = len(breakdown["names"])
    confusions = []
    for confusion in breakdown["confusions"]:
        counts = np.zeros((classes, classes), dtype=np.int64)
        for i, j, rows in confusion["cells"]:
            counts[i, j] = rows
        confusions.append(Matrix(confusion["epsilon"], counts))
    return confusions


def clean_and_middle(confusions: Sequence[Matrix]) -> list[Matrix]:
    """Confusion matrices: clean, and at the middle radius, which the report's first sentence is about."""
    radii = [matrix.epsilon for matrix in confusions if matrix.epsilon is not None]
    middle = median_low(radii) if radii else None
    return [matrix for matrix in confusions if matrix.epsilon in (None, middle)]


def confusion(data: ReportData) -> Section | None:
    """Confusion matrices of a run, clean and under attack, of up to `MOST_IN_MATRIX` classes."""
    if len(data.breakdowns) != 1:
        return None
    (breakdown,) = data.breakdowns.values()
    names = breakdown["names"]
    if len(names) > MOST_IN_MATRIX:
        return None
    tables = [
        {
            "title": matrix.title if matrix.epsilon is None else f"{_attack(data)} at {matrix.title}",
            "rows": [
                [(count, round(count / max(2, 2 * sum(row)), 3), i == j) for j, count in enumerate(row)]
                for i, row in enumerate(matrix.counts.tolist())
            ],
        }
        for matrix in clean_and_middle(matrices(breakdown))
    ]
    note = "Rows of each class (down) by predicted class (across); the darker, the larger the share of the class."
    return Section("Confusion matrix", draw("confusion", names=names, tables=tables, note=note), wide=True)


def accuracy_by_class(data: ReportData) -> Section | None:
    """Accuracy of each class, clean and under attack: at every radius of one run, at the middle one of several."""
    if not data.breakdowns:
        return None
    several = len(data.breakdowns) > 1
    columns: list[tuple[str, Matrix]] = []
    for run, breakdown in data.breakdowns.items():
        confusions = matrices(breakdown)
        for matrix in clean_and_middle(confusions) if several else confusions:
            columns.append((f"{run}, {matrix.title.lower()}" if several else matrix.title, matrix))
    names = next(iter(data.breakdowns.values()))["names"]
    if any(breakdown["names"] != names for breakdown in data.breakdowns.values()):
        return None
    middle = clean_and_middle([matrix for _, matrix in columns])[-1].counts
    order = list(range(len(names)))
    if len(names) > MOST_CLASSES:
        kept = middle.diagonal() / np.maximum(1, middle.sum(1))  # (C,)
        order = np.argsort(kept, kind="stable")[:MOST_CLASSES].tolist()
    rows = [(names[i], f"{middle[i].sum():,}", *(matrix.accuracy(i) for _, matrix in columns)) for i in order]
    header = ("Class", "Rows", *(title for title, _ in columns))
    note = f"{heading('accuracy')} in percent"
    note += f", clean and under {_attack(data)}" if columns[-1][1].epsilon is not None else ""
    note += f"; the {MOST_CLASSES} worst of {len(names)} classes." if len(order) < len(names) else "."
    return Section(
        "Accuracy by class", draw("grid", header=header, rows=rows, note=note), wide=several or len(header) > 6
    )


def confused_pairs(data: ReportData) -> Section | None:
    """The pairs of classes that are confused most often, of a run with more classes than a matrix shows."""
    if len(data.breakdowns) != 1:
        return None
    (breakdown,) = data.breakdowns.values()
    names = breakdown["names"]
    if len(names) <= MOST_IN_MATRIX:
        return None
    shown_here = clean_and_middle(matrices(breakdown))
    wrong = sum(matrix.counts for matrix in shown_here)
    assert isinstance(wrong, np.ndarray)
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind="stable")[:MOST_PAIRS]
    pairs = [divmod(int(at), len(names)) for at in order if wrong.flat[at]]
    rows = [(names[i], names[j], *(str(matrix.counts[i, j]) for matrix in shown_here)) for i, j in pairs]
    header = ("Class", "Predicted", *(matrix.title for matrix in shown_here))
    if not rows:
        return None
    return Section("Confused most often", draw("grid", header=header, rows=rows, note="Number of rows.", names=2))


def _attack(data: ReportData) -> str:
    attacks = data.comparison.attacks
    return attack_label(attacks[0][1]) if attacks else "attack"

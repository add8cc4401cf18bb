"""The tasks' metrics, in percent (-100 to 100), as the papers print them.

Each takes ``scores`` and ``labels`` (N,). A classification metric takes logits (N, C) with C >= 2 and integer
labels 0 .. C-1, and judges the largest logit; a correlation takes one score a row, (N,) or (N, 1).
"""

from collections.abc import Callable, Iterable

import numpy as np
from scipy import stats
from sklearn.metrics import f1_score, matthews_corrcoef

from contraverse.data.nearest import nearest
from contraverse.errors import UserError

Metric = Callable[[np.ndarray, np.ndarray], float]


def accuracy(scores: np.ndarray, labels: np.ndarray) -> float:
    """Share of rows whose largest logit is the label's."""
    predicted, labels = _classes(scores, labels)
    return 100 * float(np.mean(predicted == labels))


def error_rate(scores: np.ndarray, labels: np.ndarray) -> float:
    """100 - accuracy: what is usual for TREC."""
    return 100 - accuracy(scores, labels)


def f1(scores: np.ndarray, labels: np.ndarray) -> float:
    """F1 of class 1 against class 0 (GLUE's MRPC and QQP); 0 where class 1 is neither predicted nor a label.

    Raises:
        UserError: there are more than two classes.
    """
    predicted, labels = _classes(scores, labels)
    if scores.shape[1] != 2:
        raise UserError(f"f1 is for two classes, and the model tells {scores.shape[1]} apart", hint="use macro_f1")
    return 100 * float(f1_score(labels, predicted, zero_division=0.0))


def macro_f1(scores: np.ndarray, labels: np.ndarray) -> float:
    """Unweighted mean of the F1 of each class that is predicted or a label."""
    predicted, labels = _classes(scores, labels)
    return 100 * float(f1_score(labels, predicted, average="macro", zero_division=0.0))


def mcc(scores: np.ndarray, labels: np.ndarray) -> float:
    """Matthews' correlation coefficient (GLUE's CoLA), any number of classes; 0 for one constant class."""
    predicted, labels = _classes(scores, labels)
    return 0.0 if _constant(predicted, labels) else 100 * float(matthews_corrcoef(labels, predicted))


def pearson(scores: np.ndarray, labels: np.ndarray) -> float:
    """Pearson's r; 0, not NaN, where the scores or the labels are all equal."""
    scores, labels = _values(scores, labels)
    return 0.0 if _constant(scores, labels) else 100 * float(stats.pearsonr(scores, labels).statistic)


def spearman(scores: np.ndarray, labels: np.ndarray) -> float:
    """Spearman's rho, ties at their mean rank; 0, not NaN, where the scores or the labels are all equal."""
    scores, labels = _values(scores, labels)
    return 0.0 if _constant(scores, labels) else 100 * float(stats.spearmanr(scores, labels).statistic)


METRICS: dict[str, Metric] = {
    metric.__name__: metric for metric in (accuracy, error_rate, f1, macro_f1, mcc, pearson, spearman)
}


def compute(names: Iterable[str], scores: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """The metrics of these ``names``, by name.

    Raises:
        UserError: there is no metric of that name, or it does not suit the scores or labels.
    """
    check_names(names := tuple(names))
    return {name: METRICS[name](scores, labels) for name in names}


def check_names(names: Iterable[str]) -> None:
    """Refuse a name that is not in ``METRICS``.

    Raises:
        UserError: names all there are, the one spelled most like it first.
    """
    for name in names:
        if name not in METRICS:
            raise UserError(f"no metric is called {name!r}", hint=f"there are {', '.join(nearest(name, METRICS))}")


def _classes(scores: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if scores.ndim != 2 or scores.shape[1] < 2:
        raise UserError(
            f"a classification metric needs logits (N, C) of two classes or more, not {scores.shape}",
            hint="for a regression use pearson or spearman",
        )
    labels = np.asarray(labels)
    _check(scores, labels)
    if not np.issubdtype(labels.dtype, np.integer):
        raise UserError("a classification metric needs integer labels", hint="for a regression use pearson or spearman")
    if labels.min() < 0 or labels.max() >= scores.shape[1]:
        raise UserError(
            f"the labels run from {labels.min()} to {labels.max()}, and the model knows 0 to {scores.shape[1] - 1}",
            hint="evaluate on the task that the model was trained for",
        )
    return scores.argmax(1), labels


def _values(scores: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if scores.ndim == 2 and scores.shape[1] == 1:
        scores = scores[:, 0]
    if scores.ndim != 1:
        raise UserError(
            f"a correlation needs one score a row, not {scores.shape}", hint="for classes use accuracy or mcc"
        )
    labels = np.asarray(labels, dtype=np.float64)
    _check(scores, labels)
    return scores.astype(np.float64), labels


def _check(scores: np.ndarray, labels: np.ndarray) -> None:
    if len(scores) != len(labels) or not len(labels):
        raise UserError(f"{len(scores)} scores cannot be judged by {len(labels)} labels")
    if not np.isfinite(scores).all() or not np.isfinite(labels).all():
        raise UserError(
            "the scores or the labels hold NaN or infinity",
            hint="if the training diverged, lower the learning rate or epsilon",
        )


def _constant(*columns: np.ndarray) -> bool:
    return any(np.ptp(column) == 0 for column in columns)

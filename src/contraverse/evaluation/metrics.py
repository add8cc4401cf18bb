"""The table of metrics, in percent (-100 to 100), as the papers print them.

A task's metric takes ``scores`` and ``labels`` (N,): of a classification, logits (N, C) with C >= 2 and integer
labels 0 .. C-1, of which the largest logit is judged; a correlation takes one score a row, (N,) or (N, 1).

A new metric is a function and a row of `TABLE`: evaluation, training, reports and model cards read it from there.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from scipy import stats
from sklearn.metrics import f1_score, matthews_corrcoef

from contraverse.errors import UserError, unknown


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


CLASSES, SCORES = ("classification", "images"), ("similarity", "sentences", "triplets")
"""Kinds of task: those with classes, and those measured by a score a row (what learns sentences, on the STS sets)."""


@dataclass(frozen=True)
class Metric:
    """A row of the table; a task's metric is called with scores and labels.

    Attributes:
        name: in configurations, logs and JSON.
        label: in the middle of a sentence of a report; its first letter is raised in headings.
        function: from scores and labels to the value; None: measured by an evaluation of its own.
        percent: a share of rows, printed with a percent sign.
        of_rows: a mean over rows that are right or wrong, which has a standard error.
        greater_is_better: False for errors.
        kinds: kinds of task that it suits.
    """

    name: str
    label: str
    function: Callable[[np.ndarray, np.ndarray], float] | None = None
    percent: bool = False
    of_rows: bool = False
    greater_is_better: bool = True
    kinds: tuple[str, ...] = ()

    def __call__(self, scores: np.ndarray, labels: np.ndarray) -> float:
        """The value, from scores (N,) or (N, C) and labels (N,).

        Raises:
            UserError: the metric does not suit the scores or labels.
        """
        assert self.function is not None, f"{self.name} is no metric of a task"
        return self.function(scores, labels)


TABLE: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("accuracy", "accuracy", accuracy, percent=True, of_rows=True, kinds=CLASSES),
        Metric("error_rate", "error rate", error_rate, True, of_rows=True, greater_is_better=False, kinds=CLASSES),
        Metric("f1", "F1", f1, percent=True, kinds=CLASSES),
        Metric("macro_f1", "macro F1", macro_f1, percent=True, kinds=CLASSES),
        Metric("mcc", "MCC", mcc, kinds=CLASSES),
        Metric("pearson", "Pearson", pearson, kinds=SCORES),
        Metric("spearman", "Spearman", spearman, kinds=SCORES),
        Metric("robust_accuracy", "accuracy under attack", percent=True, of_rows=True),
        Metric("auroc", "AUROC"),
        Metric("auprc", "AUPRC"),
        Metric("recall_fpr1", "recall at 1 % false positives", percent=True),
        Metric("recall_fpr5", "recall at 5 % false positives", percent=True),
        Metric("ece", "calibration error", greater_is_better=False),
        Metric("recall", "recall at the threshold", percent=True),
        Metric("false_positive_rate", "false positives at the threshold", percent=True, greater_is_better=False),
        Metric("probe", "linear probe", percent=True, of_rows=True),
        Metric("probe_adversarial", "linear probe, adversarial batch norm", percent=True, of_rows=True),
        Metric("uar", "UAR"),
        *(Metric(f"sts{year}", f"STS{year}") for year in range(12, 17)),
        Metric("stsb", "STS-B"),
        Metric("sick", "SICK-R"),
        Metric("average", "average"),
        Metric("alignment", "alignment", greater_is_better=False),
        Metric("uniformity", "uniformity", greater_is_better=False),
    )
}
"""Every metric by name, those too that an evaluation of their own measures."""

METRICS: dict[str, Metric] = {name: metric for name, metric in TABLE.items() if metric.function is not None}
"""Metrics of tasks, by name."""


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
            raise unknown("metric", name, METRICS)


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

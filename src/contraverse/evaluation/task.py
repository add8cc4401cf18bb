"""A task's metrics for one model: as an evaluator for training, and as one call."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from contraverse.data import Rows
from contraverse.data.encoding import matched
from contraverse.evaluation.metrics import check_names, compute
from contraverse.evaluation.predict import encode_data, labels_of, predict
from contraverse.evaluation.robustness import robust_accuracy
from contraverse.models import AnyModel
from contraverse.types import BNBranch


class TaskEvaluator:
    """Called with a model, gives its ``metrics`` (percent) on ``data``; hand it to ``Trainer(evaluators=...)``.

    Args:
        data: labelled rows.
        metrics: names from `METRICS`.
        batch_size: rows a batch.
        bn_branch: which set of a dual model's batch norms; others, and texts, ignore it.

    Raises:
        UserError: no such metric, or ``data`` has no labels.
    """

    def __init__(
        self, data: Rows, metrics: Sequence[str], batch_size: int = 64, *, bn_branch: BNBranch = "adversarial"
    ) -> None:
        check_names(metrics)
        self.data, self.labels, self.metrics, self.batch_size = data, labels_of(data), tuple(metrics), batch_size
        self.bn_branch: BNBranch = bn_branch

    def __call__(self, model: AnyModel) -> dict[str, float]:
        return compute(self.metrics, *self.predict(model))

    def predict(self, model: AnyModel) -> tuple[np.ndarray, np.ndarray]:
        """Logits (N, C) and labels (N,), these as numbers of the model's classes."""
        rows = matched(self.data, model.labels)
        labels = self.labels if rows is self.data else labels_of(rows)
        return predict(model, rows, self.batch_size, bn_branch=self.bn_branch), labels


def evaluate(
    model: AnyModel,
    data: Rows,
    *,
    metrics: Sequence[str] = ("accuracy",),
    epsilons: Sequence[float] = (),
    batch_size: int = 64,
    bn_branch: BNBranch = "adversarial",
    **attack: Any,
) -> dict[str, float]:
    """Clean metrics and, where ``epsilons`` are given, robust accuracy, all in percent.

    Keys are the metrics' names and ``accuracy@pgd-0.3`` for each epsilon.

    Args:
        model: a classifier or regressor.
        data: labelled rows.
        metrics: names from `METRICS`.
        epsilons: radii of the attack; none is no attack.
        batch_size: rows a batch.
        bn_branch: which set of a dual model's batch norms; others, and texts, ignore it.
        attack: ``norm``, ``steps``, ``step_size``, ``restarts``, ``random_start``, ``relative``, ``seed``: see
            `robust_accuracy`, which gives a full report instead of two numbers.

    Raises:
        UserError: no such metric, no labels, or an attack on a regression.
    """
    data = encode_data(model, data)
    results = TaskEvaluator(data, metrics, batch_size, bn_branch=bn_branch)(model)
    if epsilons:
        results |= robust_accuracy(model, data, epsilons, batch_size=batch_size, bn_branch=bn_branch, **attack).metrics
    return results

"""Predictions of a model on a whole data set, in its order, and the metrics of a task from them."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from contraverse.data import Encoded, Rows, TextData
from contraverse.data.encoding import matched
from contraverse.errors import UserError
from contraverse.evaluation.metrics import check_names, compute
from contraverse.models import AnyModel
from contraverse.models.inputs import as_rows, encode_rows
from contraverse.models.predicting import (
    Progress,
    load_batch,
    logits_of,
    map_batches,
    predict_logits,
)
from contraverse.types import BNBranch

__all__ = [
    "Progress", "TaskEvaluator", "encode_data", "labels_of", "load_batch", "logits_of", "map_batches", "predict",
]  # fmt: skip


def predict(
    model: AnyModel,
    data: Rows,
    batch_size: int = 64,
    *,
    bn_branch: BNBranch = "adversarial",
    progress: Progress | None = None,
) -> np.ndarray:
    """Logits of every row, (N, C) float32 in the order of ``data`` (C is 1 for a regression).

    Runs in eval mode without gradients, and puts every module back into the mode that it was in. Rows of
    like length share a batch, padded to its longest.

    Args:
        model: a classifier or regressor.
        data: tokenised here if it is not yet.
        batch_size: rows a batch, >= 1.
        bn_branch: which set of a dual model's batch norms; others, and texts, ignore it.
        progress: called with the number of rows of each batch that is done.

    Raises:
        UserError: ``data`` has no rows.
    """
    return predict_logits(model, _tokens(model, data), batch_size, bn_branch=bn_branch, progress=progress)


def encode_data(model: AnyModel, data: Rows) -> Encoded:
    """Texts as tokens of the model's own tokenizer, each row once, however often training sees it; images as they are.

    Labels are the ids of the model's classes: see `contraverse.data.encoding.matched`.

    Raises:
        UserError: ``data`` has no rows, or of classes that the model does not know.
    """
    return _tokens(model, matched(as_rows(model, data), model.labels))


def _tokens(model: AnyModel, rows: Any) -> Encoded:
    rows = as_rows(model, rows)
    if not len(rows):
        raise UserError("the data set has no rows to evaluate")
    return encode_rows(model, replace(rows, repeats=None) if isinstance(rows, TextData) else rows)


def labels_of(data: Rows) -> np.ndarray:
    """Gold labels (N,): integers for classes, floats for scores.

    Raises:
        UserError: ``data`` has none.
    """
    if data.labels is None:
        raise UserError("the data set has no labels to evaluate against")
    return np.asarray(data.labels)


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

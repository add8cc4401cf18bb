"""Predictions of a model on a whole data set, in its order, and the plumbing that every evaluator shares."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from contraverse.data import Encoded, EncodedText, Rows, TextData
from contraverse.data.encoding import matched
from contraverse.errors import UserError
from contraverse.functional import all_parts, my_share
from contraverse.models import AnyModel, TextModel, evaluating
from contraverse.types import Batch, BNBranch

Progress = Callable[[int], None]
"""Called after each batch with the number of rows that it settled; of several processes, last with the others' rows."""


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
        progress: told the number of rows of each batch that is done.

    Raises:
        UserError: ``data`` has no rows.
    """
    encoded = _tokens(model, data)
    parts = []
    with evaluating(model), torch.no_grad():
        for rows, batch in batches(model, encoded, np.arange(len(encoded)), batch_size):
            parts.append((rows, logits_of(model, batch, bn_branch=bn_branch).cpu().numpy()))
            if progress:
                progress(len(rows))
    order, logits = zip(*all_parts(parts), strict=True)
    settle_others(progress, len(encoded) - sum(len(rows) for rows, _ in parts))
    return np.concatenate(logits)[np.argsort(np.concatenate(order))]


def settle_others(progress: Progress | None, rows: int) -> None:
    """Tell ``progress`` of the rows that other processes settled meanwhile, if there are any."""
    if progress and rows:
        progress(rows)


def logits_of(
    model: AnyModel, batch: Batch, delta: Tensor | None = None, *, bn_branch: BNBranch = "adversarial"
) -> Tensor:
    """Logits (B, C) in fp32 of one pass, by default through the batch norms that a dual model is tested with."""
    logits = model(batch, delta=delta, want=("logits",), bn_branch=bn_branch).logits
    assert isinstance(logits, Tensor)
    return logits.float()


def encode_data(model: AnyModel, data: Rows) -> Encoded:
    """Texts as tokens of the model's own tokenizer, each row once, however often training sees it; images as they are.

    Labels are the ids of the model's classes: see `contraverse.data.encoding.matched`.

    Raises:
        UserError: ``data`` has no rows, or of classes that the model does not know.
    """
    return _tokens(model, matched(data, model.labels))


def _tokens(model: AnyModel, data: Rows) -> Encoded:
    if not len(data):
        raise UserError("the data set has no rows to evaluate")
    if not isinstance(data, TextData):
        return data
    assert isinstance(model, TextModel)
    return EncodedText(replace(data, repeats=None), model.tokenizer, model.max_length)


def labels_of(data: Rows) -> np.ndarray:
    """Gold labels (N,): integers for classes, floats for scores.

    Raises:
        UserError: ``data`` has none.
    """
    if data.labels is None:
        raise UserError("the data set has no labels to evaluate against")
    return np.asarray(data.labels)


def batches(
    model: AnyModel, data: Encoded, rows: np.ndarray, batch_size: int
) -> Iterator[tuple[np.ndarray, dict[str, Tensor]]]:
    """``(rows, batch)`` for each batch of the chosen rows, on the model's device.

    The longest come first: where memory does not suffice, that shows at once. Inside of
    `contraverse.functional.sharing` this process's share of the batches alone: `all_parts` brings the results together.
    """
    for chosen in my_share(length_sorted([data.lengths[row] for row in rows], batch_size)):
        batch = data.collate([data[int(row)] for row in rows[chosen]])
        yield rows[chosen], {key: value.to(model.device) for key, value in batch.items() if isinstance(value, Tensor)}


def length_sorted(lengths: Sequence[int], batch_size: int) -> list[np.ndarray]:
    """Positions 0 .. N-1, longest first, cut into batches of ``batch_size``; equal lengths keep their order."""
    order = np.argsort(-np.asarray(lengths, dtype=np.int64), kind="stable")
    return [order[first : first + batch_size] for first in range(0, len(order), batch_size)]

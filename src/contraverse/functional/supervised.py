"""The loss of a labelled batch."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch.nn.functional as F
from torch import Tensor

from contraverse.types import UNLABELLED

_class_weights: ContextVar[Tensor | None] = ContextVar("class_weights", default=None)


@contextmanager
def weighting_classes(weights: Tensor | None) -> Iterator[None]:
    """Weight the cross-entropy of every method inside by class; the trainer's steps run here.

    `supervised_loss` and `labelled_loss` read the weights, so that no method has to know of them. Other terms of a loss
    (contrast, divergences, reconstruction) have no class and keep the weight of their rows.

    Args:
        weights: (C,) float32 on the device of the logits, > 0, in the order of the logits; None: all are 1.
    """
    token = _class_weights.set(weights)
    try:
        yield
    finally:
        _class_weights.reset(token)


def supervised_loss(logits: Tensor, labels: Tensor, *, reduction: str = "mean") -> Tensor:
    """Cross-entropy (SCAL eq. 5) of ``logits`` (B, C) with integer ``labels`` (B,), in fp32.

    Floating ``labels`` are a regression: the squared error of ``logits`` (B, 1), as Hugging Face's own head
    trains STS-B.

    Inside of `weighting_classes` row i counts ``w[labels[i]]`` times, and the mean is ``sum_i w_i l_i / B``. torch
    divides by ``sum_i w_i`` in its place: its mean over a batch is not that of the means over the batch's parts, and so
    would depend on the number of processes and of accumulated batches.
    """
    if labels.is_floating_point():
        return F.mse_loss(logits.float().squeeze(-1), labels, reduction=reduction)
    weights = _class_weights.get()
    if weights is not None and reduction == "mean":
        return labelled_loss(logits, labels)
    return F.cross_entropy(logits.float(), labels, weights, reduction=reduction)


def labelled_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """`supervised_loss`, the mean over the rows that have a label, (); 0 where none has.

    A row without one has the label `UNLABELLED`; of scores every row has one.
    """
    if labels.is_floating_point():
        return supervised_loss(logits, labels)
    known = (labels != UNLABELLED).sum()
    total = F.cross_entropy(logits.float(), labels, _class_weights.get(), reduction="sum", ignore_index=UNLABELLED)
    return total / known.clamp(min=1)

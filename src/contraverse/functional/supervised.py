"""The loss of a labelled batch."""

import torch.nn.functional as F
from torch import Tensor

from contraverse.types import UNLABELLED


def supervised_loss(logits: Tensor, labels: Tensor, *, reduction: str = "mean") -> Tensor:
    """Cross-entropy (SCAL eq. 5) of ``logits`` (B, C) with integer ``labels`` (B,), in fp32.

    Floating ``labels`` are a regression: the squared error of ``logits`` (B, 1), as Hugging Face's own head
    trains STS-B.
    """
    if labels.is_floating_point():
        return F.mse_loss(logits.float().squeeze(-1), labels, reduction=reduction)
    return F.cross_entropy(logits.float(), labels, reduction=reduction)


def labelled_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """`supervised_loss`, the mean over the rows that have a label, (); 0 where none has.

    A row without one has the label `UNLABELLED`; of scores every row has one.
    """
    if labels.is_floating_point():
        return supervised_loss(logits, labels)
    known = (labels != UNLABELLED).sum()
    return F.cross_entropy(logits.float(), labels, reduction="sum", ignore_index=UNLABELLED) / known.clamp(min=1)

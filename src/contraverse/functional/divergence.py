"""Divergences between predicted distributions, from logits (B, C), one value per row (B,)."""

import torch.nn.functional as F
from torch import Tensor


def kl(p_logits: Tensor, q_logits: Tensor) -> Tensor:
    """KL(p || q) of each row."""
    p, q = F.log_softmax(p_logits.float(), -1), F.log_softmax(q_logits.float(), -1)
    return F.kl_div(q, p, reduction="none", log_target=True).sum(-1)


def symmetric_kl(p_logits: Tensor, q_logits: Tensor, *, constant_targets: bool = False) -> Tensor:
    """KL(p || q) + KL(q || p) of each row.

    ``constant_targets`` leaves the value as it is and holds the first of each pair constant for the gradient, so that
    a distribution is drawn to the other and not to what would make the other easy to match.
    """
    if constant_targets:
        return kl(p_logits.detach(), q_logits) + kl(q_logits.detach(), p_logits)
    return kl(p_logits, q_logits) + kl(q_logits, p_logits)


def squared_distance(p_scores: Tensor, q_scores: Tensor) -> Tensor:
    """``||p - q||^2`` of each row of a regression's scores (B, 1)."""
    return (p_scores.float() - q_scores.float()).square().sum(-1)

"""Divergences between predicted distributions, from logits (B, C), one value per row (B,)."""

import torch.nn.functional as F
from torch import Tensor


def kl(p_logits: Tensor, q_logits: Tensor) -> Tensor:
    """KL(p || q) of each row."""
    p, q = F.log_softmax(p_logits.float(), -1), F.log_softmax(q_logits.float(), -1)
    return F.kl_div(q, p, reduction="none", log_target=True).sum(-1)


def symmetric_kl(p_logits: Tensor, q_logits: Tensor) -> Tensor:
    """KL(p || q) + KL(q || p) of each row."""
    return kl(p_logits, q_logits) + kl(q_logits, p_logits)

"""Losses that tell one positive from many negatives by their scores: a softmax, and its noise-contrastive estimate.

All take ``positive`` (B,) and ``negatives`` (B, M), scores ``s = a . b / t`` of B anchors, and ``valid`` (B, M), False
where an anchor has fewer negatives than M. They are computed in log space: the exponential form overflows.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from contraverse.functional.gather import gather


def _mean(losses: Tensor, counted: Tensor | None) -> Tensor:
    """Mean of ``losses`` (B,) over the anchors that count, (B,) bool; None is all.

    The divisor is the number of those of all ranks over the number of ranks, so that the mean over ranks (DDP's) is the
    mean over anchors. 0 where none counts.
    """
    if counted is None:
        return losses.mean()
    per_rank = gather(counted.sum().unsqueeze(0)).to(losses.dtype).mean()
    return losses.masked_fill(~counted, 0.0).sum() / per_rank.clamp(min=torch.finfo(losses.dtype).tiny)


def sampled_softmax(positive: Tensor, negatives: Tensor, valid: Tensor, *, counted: Tensor | None = None) -> Tensor:
    """``-log( exp(s+) / (exp(s+) + sum_j exp(s_j)) )``, mean over the anchors; always >= 0.

    With all rows of other labels as negatives it is exact. An anchor without negatives adds 0.

    Args:
        counted: (B,) bool, anchors that the mean is over; None is all.
    """
    scores = torch.cat([positive.unsqueeze(1), negatives.masked_fill(~valid, -torch.inf)], dim=1)  # (B, 1 + M)
    return _mean(torch.logsumexp(scores, dim=1) - positive, counted)


def nce(
    positive: Tensor,
    negatives: Tensor,
    valid: Tensor,
    *,
    log_z: Tensor,
    rows: int,
    counted: Tensor | None = None,
) -> Tensor:
    """CRD's estimate of the softmax over a data set: tell the data from ``m`` draws of uniform noise.

    ``-[ log P(s+) / (P(s+) + m / N) + sum_j log (m / N) / (P(s_j) + m / N) ]`` with ``P(s) = exp(s) / Z``, mean over
    the anchors (Gutmann and Hyvarinen 2010; Tian et al. 2020, with Z a constant); always >= 0. An anchor without
    negatives adds 0, the limit of m to 0.

    Args:
        log_z: log Z, of the normaliser, see `log_partition`.
        rows: N, of the data set that the noise is drawn from.
        counted: (B,) bool, anchors that the mean is over; None is all.
    """
    noise = (valid.sum(1).to(positive.dtype) / rows).log()  # (B,)
    # log P / (P + c) is the log-sigmoid of log P - log c.
    attracted = F.logsigmoid(positive - log_z - noise)
    kept_off = F.logsigmoid(noise.unsqueeze(1) - (negatives - log_z)).masked_fill(~valid, 0.0).sum(1)
    return _mean(-(attracted + kept_off), counted)


@torch.no_grad()
def log_partition(
    positive: Tensor, negatives: Tensor, valid: Tensor, *, rows: int, counted: Tensor | None = None
) -> Tensor:
    """log of CRD's Z: N times the mean of exp(s) over all scores at hand, those of all ranks included.

    Args:
        rows: N.
        counted: (B,) bool, anchors whose positive is a score at hand; None is all.

    Returns:
        A scalar; NaN where no anchor has a negative: a Z of positives alone would be one of no data set.
    """
    counted = torch.ones_like(positive, dtype=torch.bool) if counted is None else counted
    first = positive.masked_fill(~counted, -torch.inf).unsqueeze(1)
    scores = torch.cat([first, negatives.masked_fill(~valid, -torch.inf)], dim=1)  # (B, 1 + M)
    sums, others = gather(torch.logsumexp(scores, dim=1)), gather(valid.sum(1))
    count = (others + gather(counted.long())).sum().to(scores.dtype)
    log_z = torch.logsumexp(sums, dim=0) - count.log() + math.log(rows)
    return torch.where(others.sum() > 0, log_z, torch.nan)

"""Losses that tell one positive from many negatives by their scores: a softmax, and its noise-contrastive estimate.

All take ``positive`` (B,) and ``negatives`` (B, M), scores ``s = a . b / t`` of B anchors, and ``valid`` (B, M), False
where an anchor has fewer negatives than M. They are computed in log space: the exponential form overflows.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from contraverse.functional.gather import gather


def sampled_softmax(positive: Tensor, negatives: Tensor, valid: Tensor) -> Tensor:
    """``-log( exp(s+) / (exp(s+) + sum_j exp(s_j)) )``, mean over the anchors; always >= 0.

    With all rows of other labels as negatives it is exact.
    """
    scores = torch.cat([positive.unsqueeze(1), negatives.masked_fill(~valid, -torch.inf)], dim=1)
    return (torch.logsumexp(scores, dim=1) - positive).mean()


def nce(positive: Tensor, negatives: Tensor, valid: Tensor, *, log_z: Tensor, rows: int) -> Tensor:
    """CRD's estimate of the softmax over a data set: tell the data from ``m`` draws of uniform noise.

    ``-[ log P(s+) / (P(s+) + m / N) + sum_j log (m / N) / (P(s_j) + m / N) ]`` with ``P(s) = exp(s) / Z``, mean over
    the anchors (Gutmann and Hyvarinen 2010; Tian et al. 2020, with Z a constant); always >= 0.

    Args:
        log_z: log Z, of the normaliser, see `log_partition`.
        rows: N, of the data set that the noise is drawn from.
    """
    noise = (valid.sum(1).to(positive.dtype) / rows).log()
    # log P / (P + c) is the log-sigmoid of log P - log c.
    told = F.logsigmoid(positive - log_z - noise)
    kept_off = F.logsigmoid(noise.unsqueeze(1) - (negatives - log_z)).masked_fill(~valid, 0.0).sum(1)
    return -(told + kept_off).mean()


@torch.no_grad()
def log_partition(positive: Tensor, negatives: Tensor, valid: Tensor, *, rows: int) -> Tensor:
    """log of CRD's Z: N times the mean of exp(s) over all scores at hand, those of all ranks included."""
    scores = torch.cat([positive.unsqueeze(1), negatives.masked_fill(~valid, -torch.inf)], dim=1)
    sums, counts = gather(torch.logsumexp(scores, dim=1)), gather(valid.sum(1) + 1)
    return torch.logsumexp(sums, dim=0) - counts.sum().to(scores.dtype).log() + math.log(rows)

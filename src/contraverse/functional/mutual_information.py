"""InfoBERT's two bounds of mutual information, and the choice of the tokens that one of them is about.

Both are sums over tokens of all ranks, over their number. Each rank returns its share, times the number of ranks: the
mean over ranks, which DDP takes of gradients, is the bound of one process with the whole batch. Rows and padding may
differ between ranks in length, not in number.
"""

import math

import torch
from torch import Tensor

from contraverse.functional.gather import gather, rank


def club_bound(features: Tensor, mask: Tensor) -> Tensor:
    """CLUB's upper bound of I(X; T) where T given X is a Gaussian of unit variance around t.

    ``1/n^2 sum_i sum_j ||t_i - t_j||^2 / 2`` over the n real tokens of the batch, each with each, which is their
    variance: ``1/n sum_i ||t_i - mean(t)||^2``. Computed as that, in fp32: n distances and not n^2.

    Args:
        features: (B, T, H), t.
        mask: (B, T), True for real tokens.
    """
    real = mask.unsqueeze(-1).bool()
    features = torch.where(real, features.float(), 0.0)
    counts = gather(real.sum().float().reshape(1))
    total = counts.sum().clamp(min=1)
    # No gradient goes through the mean: over all tokens it sums to zero.
    mean = gather(features.detach().sum((0, 1)).unsqueeze(0)).sum(0) / total
    distances = torch.where(real, (features - mean).square(), 0.0)
    return distances.sum() * len(counts) / total


def anchored(sizes: Tensor, mask: Tensor, low: float, high: float) -> tuple[Tensor, Tensor]:
    """The tokens of each row that are moved neither least nor most easily.

    A row's n real tokens are ranked by ``sizes`` from the smallest, counting from 0; those of rank ceil(low n) to
    ceil(high n), the end left out, are anchored features.

    Args:
        sizes: (B, T), the norm of the loss's gradient at each token.
        mask: (B, T), True for real tokens.
        low, high: shares of a row, 0 <= low < high <= 1.

    Returns:
        Where they stand (B, K), int64, with K fixed by T; and which of these places count (B, K), bool.
    """
    mask = mask.bool()
    order = torch.where(mask, sizes.nan_to_num(), torch.inf).argsort(dim=1, stable=True)
    length = mask.sum(1, keepdim=True).double()  # in float, .9 times 10 may be more than 9
    first, last = (length * low).ceil().long(), (length * high).ceil().long()
    width = mask.shape[1]
    ranks = first + torch.arange(min(width, math.ceil((high - low) * width) + 1), device=mask.device)
    return order.gather(1, ranks.clamp(max=width - 1)), ranks < last


def info_nce_bound(scores: Tensor, valid: Tensor) -> Tensor:
    """InfoNCE's lower bound of I(T_i; Z) from a critic's scores of tokens t and sentences z.

    ``1/N sum_i (g(t_i, z_i) - log 1/N sum_j exp g(t_j, z_i))`` over the N tokens that count in the batch; z_i is the
    sentence that t_i stands in. At most log N.

    Args:
        scores: (B, K, R), g of each token of this rank with each sentence of all R, in rank order.
        valid: (B, K), which tokens count.
    """
    scores = scores.float()
    rows, _, sentences = scores.shape
    counts = gather(valid.sum().float().reshape(1))
    total = counts.sum().clamp(min=1)
    # Of each rank's tokens first: a rank may have more of them than another. Far below any score, and yet a number.
    missing = torch.where(valid.unsqueeze(-1), scores, torch.finfo(torch.float32).min / 2)
    partial = missing.reshape(-1, sentences).logsumexp(0)
    everywhere = gather(partial.unsqueeze(0)).logsumexp(0) - total.log()
    own = rank() * rows + torch.arange(rows, device=scores.device)
    positive = scores.gather(2, own.reshape(-1, 1, 1).expand(-1, scores.shape[1], 1)).squeeze(-1)
    bound = torch.where(valid, positive - everywhere[own].unsqueeze(1), 0.0)
    return bound.sum() * len(counts) / total

"""Alignment and uniformity of embeddings (Wang & Isola, 2020): lower is better for both.

Rows are L2-normalised first. Both are computed in double precision.
"""

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


def alignment(x: np.ndarray | Tensor, y: np.ndarray | Tensor, alpha: float = 2) -> float:
    """Mean of ``||x_i - y_i||^alpha`` over positive pairs: 0 (equal) to ``2^alpha`` (opposite).

    Args:
        x: (N, Z).
        y: (N, Z), row i is the positive of ``x``'s row i.
        alpha: > 0.

    Raises:
        ValueError: the shapes differ or N is 0.
    """
    if x.shape != y.shape or not len(x):
        raise ValueError(f"alignment needs two sets of pairs, not shapes {tuple(x.shape)} and {tuple(y.shape)}")
    return float((_unit(x) - _unit(y)).norm(dim=1).pow(alpha).mean())


def uniformity(x: np.ndarray | Tensor, t: float = 2, block: int = 1024) -> float:
    """Logarithm of the mean of ``exp(-t ||x_i - x_j||^2)`` over all pairs i < j: 0 (collapsed) down to ``-4t``.

    Args:
        x: (N, Z), N >= 2.
        t: > 0.
        block: rows whose distances are held at once: memory is block * N.

    Raises:
        ValueError: N is below 2.
    """
    n = len(x)
    if n < 2:
        raise ValueError(f"uniformity needs at least two rows, not {n}")
    rows = _unit(x)
    sums = []
    for first in range(0, n - 1, block):
        left, right = rows[first : first + block], rows[first:]
        later = torch.ones(len(left), len(right), dtype=torch.bool).triu(1)
        # |a - b|^2 of unit rows, without the (block, N, Z) differences.
        squares = (2 - 2 * left @ right.T).clamp(min=0)
        sums.append(torch.logsumexp(-t * squares[later], dim=0))
    return float(torch.logsumexp(torch.stack(sums), dim=0) - math.log(n * (n - 1) / 2))


def _unit(x: np.ndarray | Tensor) -> Tensor:
    return F.normalize(torch.as_tensor(x).detach().cpu().double(), dim=1)

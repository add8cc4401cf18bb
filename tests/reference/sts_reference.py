"""Spearman's rho and the three aggregates of an STS set from their definitions: plain loops, nothing vectorised."""

import math
from collections.abc import Sequence


def mean_ranks(values: Sequence[float]) -> list[float]:
    """Rank of each value from 1; equal values share the mean of the ranks that they cover."""
    ranks = []
    for value in values:
        below = sum(other < value for other in values)
        equal = sum(other == value for other in values)
        ranks.append(below + (equal + 1) / 2)
    return ranks


def pearson(x: Sequence[float], y: Sequence[float]) -> float:
    """Covariance over the product of the standard deviations."""
    n = len(x)
    mean_x, mean_y = sum(x) / n, sum(y) / n
    covariance = sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True))
    spread_x = math.sqrt(sum((a - mean_x) ** 2 for a in x))
    spread_y = math.sqrt(sum((b - mean_y) ** 2 for b in y))
    return covariance / (spread_x * spread_y)


def spearman(x: Sequence[float], y: Sequence[float]) -> float:
    """Pearson's r of the ranks."""
    return pearson(mean_ranks(x), mean_ranks(y))


def cosine(a: Sequence[float], b: Sequence[float]) -> float:
    dot = sum(x * y for x, y in zip(a, b, strict=True))
    return dot / (math.sqrt(sum(x * x for x in a)) * math.sqrt(sum(y * y for y in b)))


def aggregates(cosines: Sequence[float], golds: Sequence[float], subsets: Sequence[str]) -> tuple[float, float, float]:
    """``all``, ``mean`` and ``wmean`` of Spearman x 100, as SimCSE's fork of SentEval prints them."""
    rhos, sizes = [], []
    for name in sorted(set(subsets)):
        rows = [i for i, subset in enumerate(subsets) if subset == name]
        rhos.append(spearman([cosines[i] for i in rows], [golds[i] for i in rows]))
        sizes.append(len(rows))
    weighted = sum(rho * size for rho, size in zip(rhos, sizes, strict=True)) / sum(sizes)
    return 100 * spearman(cosines, golds), 100 * sum(rhos) / len(rhos), 100 * weighted

"""Self-Teaching (Zhuang and Zuccon 2022) and R-Drop (Liang et al. 2021) on classes, in plain loops over rows.

Written from the equations, in float64.
"""

import math
from collections.abc import Sequence

from reference.differences import Array


def probabilities(logits: Sequence[float]) -> list[float]:
    powers = [math.exp(value - max(logits)) for value in logits]
    return [power / sum(powers) for power in powers]


def divergence(p: Sequence[float], q: Sequence[float]) -> float:
    """KL(p || q) of two distributions."""
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))


def loss(
    clean: Array, noisy: Array, labels: Sequence[int], *, a: float, b: float, symmetric: bool, teacher: Array
) -> float:
    """``CE(x, y) + a CE(x', y) + b D``, mean over rows; ``teacher``: the clean logits where they are constant."""
    total = 0.0
    for row, label in enumerate(labels):
        p, q = probabilities(clean[row].tolist()), probabilities(noisy[row].tolist())
        if symmetric:
            apart = (divergence(p, q) + divergence(q, p)) / 2
        else:
            apart = divergence(probabilities(teacher[row].tolist()), q)
        total += -math.log(p[label]) - a * math.log(q[label]) + b * apart
    return total / len(labels)

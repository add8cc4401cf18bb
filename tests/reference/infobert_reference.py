"""InfoBERT (Wang et al. 2021): the information-bottleneck bound and the anchored local features, in plain loops."""

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def club_bound(tokens: Array) -> float:
    """CLUB's upper bound of I(X; T) with a unit Gaussian around each feature, over all pairs of ``tokens`` (n, D).

    ``1/n sum_i log q(t_i | x_i) - 1/n^2 sum_i sum_j log q(t_j | x_i)``, where log q(t_j | x_i) = -||t_j - t_i||^2 / 2
    up to a constant that cancels: the first term is zero.
    """
    n = len(tokens)
    total = 0.0
    for a in tokens:
        for b in tokens:
            total += sum((float(x) - float(y)) ** 2 for x, y in zip(a, b, strict=True)) / 2
    return total / n**2


def club_of_a_shuffle(tokens: Array, order: list[int]) -> float:
    """The authors' estimate of it: every feature against one other."""
    distances = [
        sum((float(x) - float(y)) ** 2 for x, y in zip(tokens[i], tokens[j], strict=True)) / 2
        for i, j in enumerate(order)
    ]
    return sum(distances) / len(distances)


def anchored(grad: Array, real: list[int], low: float = 0.5, high: float = 0.9) -> list[int]:
    """Places of the anchored features of one sentence: real tokens by ||grad_t||_2 ascending, ranks ceil(low n) to
    ceil(high n), the end left out. ``grad`` (T, D); ``real`` (T,), 0 on padding.
    """
    places = [t for t in range(len(real)) if real[t]]
    sizes = {t: math.sqrt(sum(float(v) ** 2 for v in grad[t])) for t in places}
    ordered = sorted(places, key=lambda t: sizes[t])
    n = len(places)
    return sorted(ordered[math.ceil(low * n) : math.ceil(high * n)])


def info_nce(
    local: Array, globals_: Array, critic: Callable[[Array, Array], float], groups: list[list[int]] | None = None
) -> float:
    """The lower bound of I(T; Z): mean T(t_i, z_i) - mean_i log 1/n sum_j exp T(t_j, z_i).

    ``local`` (n, D) are anchored features and ``globals_`` (n, H) the sentence feature of each one's own sentence. In
    groups, the mean over groups of the second term, each within itself.
    """
    groups = groups if groups is not None else [list(range(len(local)))]
    positive = [critic(local[i], globals_[i]) for i in range(len(local))]
    contrast = []
    for group in groups:
        terms = []
        for i in group:
            values = [critic(local[j], globals_[i]) for j in group]
            largest = max(values)
            terms.append(largest + math.log(sum(math.exp(v - largest) for v in values)) - math.log(len(group)))
        contrast.append(sum(terms) / len(terms))
    return sum(positive) / len(positive) - sum(contrast) / len(contrast)


def mlp_critic(w1: Array, b1: Array, w2: Array, b2: float) -> Callable[[Array, Array], float]:
    """``softplus(w2 relu(W1 [t; z] + b1) + b2)``."""

    def critic(t: Array, z: Array) -> float:
        hidden = np.maximum(w1 @ np.concatenate([t, z]) + b1, 0)
        value = float(w2 @ hidden) + b2
        return max(value, 0.0) + math.log1p(math.exp(-abs(value)))

    return critic


def total(task: float, bound: float, information: float, beta: float, alpha: float) -> float:
    """Eq. (9): the task's loss, + beta times the upper bound of I(X; T), - alpha times the lower one of I(T_k; Z)."""
    return task + beta * bound - alpha * information

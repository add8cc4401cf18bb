"""LARS in NumPy, number by number, from Algorithm 1 of You, Gitman and Ginsburg (2017)."""

import math
from collections.abc import Sequence

import numpy as np


def length(values: np.ndarray) -> float:
    return math.sqrt(sum(float(value) ** 2 for value in values.flatten()))


def lars(
    weights: Sequence[np.ndarray],
    gradients: Sequence[Sequence[np.ndarray]],
    rates: Sequence[float],
    *,
    momentum: float,
    weight_decay: float,
    trust: float,
    exclude_vectors: bool,
) -> list[np.ndarray]:
    """The weights after one step for each of ``rates``; ``gradients[t][i]`` is the i-th tensor's in step t."""
    weights = [w.astype(np.float64) for w in weights]
    velocities = [np.zeros_like(w) for w in weights]
    for gradient, rate in zip(gradients, rates, strict=True):
        for i, g in enumerate(gradient):
            w, decay, local = weights[i], weight_decay, 1.0
            if exclude_vectors and w.ndim == 1:
                decay = 0.0
            elif length(w) > 0 and length(g) > 0:
                local = trust * length(w) / (length(g) + decay * length(w))
            velocities[i] = momentum * velocities[i] + rate * local * (g + decay * w)
            weights[i] = w - velocities[i]
    return weights

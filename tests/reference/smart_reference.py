"""SMART (Jiang et al. 2020), ALUM (Liu et al. 2020) and R3F (Aghajanyan et al. 2021).

Written from the papers' equations: plain loops in float64 over rows of logits. A model is any function from a
perturbation (T, D) of one sentence to its logits (C,); gradients at the perturbation are central differences.
"""

import math
from collections.abc import Callable

import numpy as np
from reference.differences import Array, slope

Logits = Callable[[Array], Array]


def log_softmax(logits: Array) -> list[float]:
    largest = max(float(v) for v in logits)
    total = largest + math.log(sum(math.exp(float(v) - largest) for v in logits))
    return [float(v) - total for v in logits]


def kl(p: Array, q: Array) -> float:
    """KL(P || Q) of two rows of logits."""
    return sum(math.exp(a) * (a - b) for a, b in zip(log_softmax(p), log_softmax(q), strict=True))


def symmetric_kl(p: Array, q: Array) -> float:
    """l_s of SMART for classes: ``KL(P || Q) + KL(Q || P)``."""
    return kl(p, q) + kl(q, p)


def squared(p: Array, q: Array) -> float:
    """l_s of SMART for a regression."""
    return float((float(p[0]) - float(q[0])) ** 2)


def mean_of(distance: Callable[[Array, Array], float], p: Array, q: Array) -> float:
    """R_s and D_Breg, eqs. (2) and (4): the mean over rows of a distance of logits (B, C)."""
    return sum(distance(a, b) for a, b in zip(p, q, strict=True)) / len(p)


def project(delta: Array, epsilon: float | None) -> Array:
    """Onto the Linf ball."""
    return delta if epsilon is None else np.clip(delta, -epsilon, epsilon)


def perturbation(
    model: Logits,
    noise: Array,
    *,
    step_size: float,
    epsilon: float | None,
    steps: int = 1,
    distance: Callable[[Array, Array], float] = symmetric_kl,
    constant_target: bool = True,
) -> Array:
    """Algorithm 1, lines 5 to 9, of one sentence: from ``noise`` ~ N(0, sigma^2), ``steps`` times
    ``delta <- project(delta + eta g / ||g||_inf)``, g the gradient of l_s(f(x), f(x + delta)).

    The clean prediction does not depend on delta, so that holding it constant or not is the same.
    """
    assert constant_target
    clean = model(np.zeros_like(noise))
    delta = np.array(noise, dtype=np.float64)
    for _ in range(steps):
        g = slope(lambda d: distance(clean, model(d)), delta)
        largest = max(abs(float(v)) for v in g.ravel())
        delta = project(delta + step_size * g / largest, epsilon)
    return delta


def smart_total(task: float, smoothness: float, bregman: float, lambda_s: float, mu: float) -> float:
    """Eqs. (1) and (3): ``L + lambda_s R_s + mu D_Breg``."""
    return task + lambda_s * smoothness + mu * bregman


def momentum_copy(copies: Array, weights: Array, beta: float) -> Array:
    """Eq. (5)'s exponential moving average: ``theta~ <- (1 - beta) theta + beta theta~``."""
    return np.array([(1 - beta) * float(w) + beta * float(c) for c, w in zip(copies, weights, strict=True)])


def alum_total(task: float, clean: Array, perturbed: Array, alpha: float) -> float:
    """ALUM eq. (5): ``l(f(x), y) + alpha max l(f(x + delta), f(x))``, with its symmetric KL for l."""
    return task + alpha * mean_of(symmetric_kl, perturbed, clean)


def r3f_total(task: float, clean: Array, noisy: Array, weight: float) -> float:
    """R3F: ``L + lambda KL_S(f(x) || f(x + z))``, z noise that nothing climbs."""
    return task + weight * mean_of(symmetric_kl, clean, noisy)

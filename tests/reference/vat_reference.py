"""VAT (Miyato et al. 2018), eqs. (5) to (16), written from the paper in float64, one input at a time.

A model is any function from a perturbation of one input to its logits (C,). The Hessian of eq. (9) is written out
whole, which the paper avoids: eq. (12) is then a check and not the definition.
"""

import math
from collections.abc import Callable

import numpy as np
from reference.differences import Array, slope

Logits = Callable[[Array], Array]


def probabilities(logits: Array) -> Array:
    shifted = [math.exp(float(value) - float(max(logits))) for value in logits]
    return np.array([value / sum(shifted) for value in shifted])


def divergence(p_logits: Array, q_logits: Array) -> float:
    """D[p, q] = KL(p || q) of one row."""
    p, q = probabilities(p_logits), probabilities(q_logits)
    return sum(float(a) * (math.log(float(a)) - math.log(float(b))) for a, b in zip(p, q, strict=True))


def regularizer(clean: Array, perturbed: Array) -> float:
    """R_vadv, eq. (7): the mean of LDS, eq. (5), over all rows, from logits (N, C)."""
    return sum(divergence(p, q) for p, q in zip(clean, perturbed, strict=True)) / len(clean)


def total(clean: Array, perturbed: Array, labels: list[int], alpha: float) -> float:
    """Eq. (8): the negative log-likelihood of the rows with a label, -100 is none, and ``alpha`` times R_vadv."""
    known = [(row, label) for row, label in zip(clean, labels, strict=True) if label != -100]
    likelihood = sum(math.log(float(probabilities(row)[label])) for row, label in known)
    return -likelihood / max(len(known), 1) + alpha * regularizer(clean, perturbed)


def unit(v: Array) -> Array:
    return v / math.sqrt(sum(float(value) ** 2 for value in v.ravel()))


def hessian(jacobian: Array, logits: Array) -> Array:
    """H of eq. (9), (I, I): of a softmax of logits with ``jacobian`` (C, I) at the input, ``J^T (diag p - p p^T) J``.

    KL(p || q) has no other second derivative at q = p, where its first is zero.
    """
    p = probabilities(logits)
    return jacobian.T @ (np.diag(p) - np.outer(p, p)) @ jacobian


def first_eigenvector(matrix: Array) -> Array:
    """u of eq. (10), of either sign."""
    return np.linalg.eigh(matrix)[1][:, -1]


def power_iteration(matrix: Array, start: Array, steps: int) -> Array:
    """d after ``steps`` times ``d <- H d / ||H d||``, eq. (11)."""
    d = unit(start.ravel())
    for _ in range(steps):
        d = unit(matrix @ d)
    return d.reshape(start.shape)


def perturbation(model: Logits, start: Array, *, xi: float, epsilon: float, steps: int) -> Array:
    """r_vadv, eqs. (13) to (15): ``steps`` times ``d <- unit of grad_r D at r = xi d``; then ``epsilon d``."""
    clean, d = model(np.zeros_like(start)), unit(start)
    for _ in range(steps):
        d = unit(slope(lambda r: divergence(clean, model(r)), xi * d, h=1e-6))
    return epsilon * d

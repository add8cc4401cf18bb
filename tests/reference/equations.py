"""SCAL and USCAL (Miao et al. 2021) from the printed equations: plain loops in float64, nothing vectorised.

Written from the paper and SimCSE's description, not from the implementation that they check. Vectors are rows of a
NumPy array; ``t`` is the temperature.
"""

import math
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def cosine(a: Array, b: Array) -> float:
    """sim() of eq. (4)."""
    dot = sum(float(x) * float(y) for x, y in zip(a, b, strict=True))
    return dot / (math.sqrt(sum(float(x) ** 2 for x in a)) * math.sqrt(sum(float(y) ** 2 for y in b)))


def _log_sum_exp(values: list[float]) -> float:
    largest = max(values)
    return largest + math.log(sum(math.exp(v - largest) for v in values))


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def info_nce(p: Array, q: Array, t: float) -> float:
    """Eq. (4): ``-log( exp(sim(p_i, q_i)/t) / sum_k exp(sim(p_i, q_k)/t) )``, mean over i."""
    return simcse_supervised(p, q, [], t)


def simcse_supervised(anchor: Array, positive: Array, negative: Array | list[Array], t: float) -> float:
    """SimCSE's eq. (5): the denominator runs over the positives *and* the hard negatives of the whole batch."""
    losses = []
    for i in range(len(anchor)):
        logits = [cosine(anchor[i], positive[k]) / t for k in range(len(positive))]
        logits += [cosine(anchor[i], negative[k]) / t for k in range(len(negative))]
        losses.append(_log_sum_exp(logits) - logits[i])
    return _mean(losses)


def same_class_contrast(p: Array, q: Array, labels: list[int], t: float, same_class: str) -> float:
    """Eq. (4) with other rows of the anchor's class ``"masked"`` out of the denominator; or as ``"positives"`` too.

    The latter is L_out^sup of Khosla et al. (2020), eq. 2: ``-1/|P(i)| sum_{p in P(i)} log( exp(z_i . z_p / t) /
    sum_{a in A(i)} exp(z_i . z_a / t) )``, with A(i) the other view of all rows and P(i) those of i's class.
    """
    losses = []
    for i in range(len(p)):
        logits = [cosine(p[i], q[k]) / t for k in range(len(q))]
        own = [k for k in range(len(q)) if labels[k] == labels[i]]
        if same_class == "masked":
            losses.append(_log_sum_exp([logits[k] for k in range(len(q)) if k == i or k not in own]) - logits[i])
        else:
            losses.append(sum(_log_sum_exp(logits) - logits[k] for k in own) / len(own))
    return _mean(losses)


def same_class_as_printed(z: Array, z_adv: Array, labels: list[int], t: float, same_class: str) -> float:
    """Eq. (7) as printed, likewise: clean rows are masked out of its denominator, adversarial ones are positives."""
    losses = []
    for i in range(len(z)):
        own = [k for k in range(len(z)) if labels[k] == labels[i]]
        others = [k for k in range(len(z)) if same_class != "masked" or k == i or k not in own]
        positives = own if same_class == "positives" else [i]
        denominator = _log_sum_exp([cosine(z[i], z[k]) / t for k in others])
        losses.append(sum(denominator - cosine(z[i], z_adv[k]) / t for k in positives) / len(positives))
    return _mean(losses)


def scal_contrast_as_printed(z: Array, z_adv: Array, t: float) -> float:
    """Eq. (7): numerator clean against adversarial; denominator clean against clean, k = i included."""
    losses = []
    for i in range(len(z)):
        denominator = _log_sum_exp([cosine(z[i], z[k]) / t for k in range(len(z))])
        losses.append(denominator - cosine(z[i], z_adv[i]) / t)
    return _mean(losses)


def cross_entropy(logits: Array, labels: list[int]) -> float:
    """Eq. (5)."""
    return _mean([_log_sum_exp([float(v) for v in row]) - float(row[y]) for row, y in zip(logits, labels, strict=True)])


def kl(p_logits: Array, q_logits: Array) -> list[float]:
    """KL(p || q) of each row, from logits: ``sum_c p_c (log p_c - log q_c)``."""
    rows = []
    for p, q in zip(p_logits, q_logits, strict=True):
        log_p = [float(v) - _log_sum_exp([float(x) for x in p]) for v in p]
        log_q = [float(v) - _log_sum_exp([float(x) for x in q]) for v in q]
        rows.append(sum(math.exp(a) * (a - b) for a, b in zip(log_p, log_q, strict=True)))
    return rows


def scal_total(
    logits: Array,
    logits_adv: Array,
    labels: list[int],
    z: Array,
    z_adv: Array,
    *,
    alpha: float,
    t: float,
    contrast: Callable[[Array, Array, float], float] = info_nce,
) -> float:
    """Eq. (8): ``1/2 (L_ce(x, y) + L_ce(x_adv, y)) + alpha * L_ct(x, x_adv)``."""
    return 0.5 * (cross_entropy(logits, labels) + cross_entropy(logits_adv, labels)) + alpha * contrast(z, z_adv, t)


def uscal_total(z_1: Array, z_2: Array, z_adv: Array, *, alpha: float, t: float) -> float:
    """Eq. (10): ``L_ct(emb1, emb2) + alpha * L_ct(emb1, adv)``."""
    return info_nce(z_1, z_2, t) + alpha * info_nce(z_1, z_adv, t)


def groups(x: Array, scope: str) -> Iterator[Array]:
    """Views of ``x`` (B, T, D), one for each group that a norm is taken over."""
    if scope == "batch":
        yield x
    for i in range(x.shape[0]):
        if scope == "sequence":
            yield x[i]
        elif scope == "token":
            yield from (x[i, j] for j in range(x.shape[1]))


def size(x: Array, norm: str) -> float:
    """Norm of the flattened ``x``."""
    values = [abs(float(v)) for v in x.ravel()]
    return max(values) if norm == "linf" else math.sqrt(sum(v * v for v in values))


def norms(x: Array, norm: str, scope: str) -> list[float]:
    """The norm of each group, in order."""
    return [size(group, norm) for group in groups(x, scope)]


def direction(grad: Array, norm: str, scope: str) -> Array:
    """Eq. (3)'s ``g / ||g||_2`` or eq. (2)'s ``sign(g)``; a zero or non-finite group gives zero."""
    result = np.array(grad, dtype=np.float64)
    for group in groups(result, scope):
        length = size(group, "l2")
        if not np.isfinite(group).all() or length == 0:
            group[...] = 0
        else:
            group[...] = np.sign(group) if norm == "linf" else group / length
    return result


def project(delta: Array, epsilon: float | None, norm: str, scope: str) -> Array:
    """The nearest point of the ball of eq. (1)'s constraint."""
    result = np.array(delta, dtype=np.float64)
    if epsilon is None:
        return result
    for group in groups(result, scope):
        if norm == "linf":
            group[...] = np.clip(group, -epsilon, epsilon)
        elif size(group, "l2") > epsilon:
            group[...] = group * (epsilon / size(group, "l2"))
    return result


def fgm(grad: Array, epsilon: float, scope: str = "sequence") -> Array:
    """Eqs. (3), (6) and (9): ``epsilon * g / ||g||_2``."""
    return epsilon * direction(grad, "l2", scope)


def fgsm(grad: Array, epsilon: float, scope: str = "sequence") -> Array:
    """Eq. (2): ``epsilon * sign(g)``."""
    return epsilon * direction(grad, "linf", scope)

"""CARL's contrastive losses (Qiu et al. 2021, eqs. 2-5) and the noise-contrastive estimate behind them, in plain loops.

Written from the paper, Gutmann and Hyvarinen (2010) and CRD (Tian et al. 2020). An anchor is scored against one
positive and ``m`` negatives, ``s = x . y / t`` (eq. 4); the noise is uniform over the ``n`` rows of the data set.
"""

import math

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def score(a: Array, b: Array, t: float) -> float:
    """log h of eq. (4)."""
    return sum(float(x) * float(y) for x, y in zip(a, b, strict=True)) / t


def scores(anchor: Array, others: Array, t: float) -> list[float]:
    return [score(anchor, other, t) for other in others]


def _log_sum_exp(values: list[float]) -> float:
    largest = max(values)
    return largest + math.log(sum(math.exp(v - largest) for v in values))


def softmax_loss(positive: float, negatives: list[float]) -> float:
    """The exact softmax over 1 + m scores: eq. (2) with the positive in the denominator, as in every InfoNCE."""
    return _log_sum_exp([positive, *negatives]) - positive


def softmax_as_printed(positive: float, negatives: list[float]) -> float:
    """Eq. (2) to the letter: the denominator runs over the negatives alone, so that the loss has no lower bound."""
    return _log_sum_exp(negatives) - positive


def nce_loss(positive: float, negatives: list[float], log_z: float, n: int) -> float:
    """CRD: ``-[log P+ / (P+ + m Pn) + sum_j log m Pn / (P_j + m Pn)]``, P = exp(s) / Z, Pn = 1 / n."""
    noise = len(negatives) / n
    p = math.exp(positive - log_z)
    total = -math.log(p / (p + noise))
    for negative in negatives:
        p = math.exp(negative - log_z)
        total -= math.log(noise / (p + noise))
    return total


def log_constant(all_scores: list[float], n: int) -> float:
    """log of CRD's Z, ``n`` times the mean of exp over the scores at hand."""
    return math.log(n) + _log_sum_exp(all_scores) - math.log(len(all_scores))


def full_softmax_loss(all_scores: list[float], true: int) -> float:
    """What NCE approximates: ``-log exp(s_true) / sum over the whole data set``."""
    return _log_sum_exp(all_scores) - all_scores[true]


def expected_nce(all_scores: list[float], data: list[float], m: int, log_z: float) -> float:
    """NCE's loss in expectation: one draw from ``data`` as positive, m from the uniform noise; no draw is made."""
    n = len(all_scores)
    noise, total = m / n, 0.0
    for s, share in zip(all_scores, data, strict=True):
        p = math.exp(s - log_z)
        total -= share * math.log(p / (p + noise)) + m / n * math.log(noise / (p + noise))
    return total


def expected_nce_slope(all_scores: list[float], true: int, m: int, log_z: float) -> Array:
    """Gradient of `expected_nce` at the scores, all data being ``true``: by central differences."""
    data = [float(i == true) for i in range(len(all_scores))]
    slope = []
    for i in range(len(all_scores)):
        ends = []
        for sign in (1, -1):
            moved = list(all_scores)
            moved[i] += sign * 1e-5
            ends.append(expected_nce(moved, data, m, log_z))
        slope.append((ends[0] - ends[1]) / 2e-5)
    return np.array(slope)


def softmax_slope(all_scores: list[float], true: int) -> Array:
    """Gradient of `full_softmax_loss`: softmax minus one-hot."""
    total = _log_sum_exp(all_scores)
    return np.array([math.exp(s - total) - (i == true) for i, s in enumerate(all_scores)])


def updated(bank: Array, index: list[int], rows: Array, momentum: float) -> Array:
    """Eq. (5) for each row of a batch in order, also for one that stands there twice; then norm 1, as in CRD."""
    result = np.array(bank, dtype=np.float64)
    for i, row in zip(index, rows, strict=True):
        for k in range(len(row)):
            result[i, k] = momentum * result[i, k] + (1 - momentum) * float(row[k])
    for i in set(index):
        result[i] = unit(result[i])
    return result


def unit(row: Array) -> Array:
    length = math.sqrt(sum(float(v) ** 2 for v in row))
    return np.array([float(v) / length for v in row])

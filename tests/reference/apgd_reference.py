"""Auto-PGD of Croce & Hein (2020), Algorithm 1, on one point at a time, in plain loops and float64."""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


class Climbed(NamedTuple):
    """``looked_at``: every point whose loss was asked for, in order; ``best``, its ``loss``; the last step size."""

    looked_at: list[Array]
    best: Array
    loss: float
    eta: float


def w(n_iter: int) -> list[int]:
    """Section 3: w_j = ceil(p_j N), p_0 = 0, p_1 = 0.22, p_{j+1} = p_j + max(p_j - p_{j-1} - 0.03, 0.06)."""
    p = [0.0, 0.22]
    while p[-1] + max(p[-1] - p[-2] - 0.03, 0.06) <= 1:
        p.append(p[-1] + max(p[-1] - p[-2] - 0.03, 0.06))
    found = []
    for each in p:
        at = math.ceil(round(each * n_iter, 9))
        if at not in found:
            found.append(at)
    return found


def project(x: Array, epsilon: float, norm: str) -> Array:
    if norm == "linf":
        return np.clip(x, -epsilon, epsilon)
    size = float(np.sqrt((x**2).sum()))
    return x if size <= epsilon else x * epsilon / size


def towards(gradient: Array, norm: str) -> Array:
    size = float(np.sqrt((gradient**2).sum()))
    if size == 0:
        return gradient
    return np.sign(gradient) if norm == "linf" else gradient / size


def apgd(
    f: Callable[[Array], float],
    gradient: Callable[[Array], Array],
    x0: Array,
    epsilon: float,
    eta: float,
    n_iter: int,
    norm: str,
    alpha: float = 0.75,
    rho: float = 0.75,
) -> Climbed:
    """Algorithm 1, line by line; x(k) and f(k) are lists by k, so that the conditions can be read off the paper."""
    marks = w(n_iter)
    x = {0: x0, 1: project(x0 + eta * towards(gradient(x0), norm), epsilon, norm)}
    value = {0: f(x[0]), 1: f(x[1])}
    looked_at = [x[0], x[1]]
    f_max, x_max = max(value[0], value[1]), x[0] if value[0] >= value[1] else x[1]
    f_max_at, eta_at = {0: f_max}, {0: eta}
    previous = 0
    for k in range(1, n_iter):
        z = project(x[k] + eta * towards(gradient(x[k]), norm), epsilon, norm)
        x[k + 1] = project(x[k] + alpha * (z - x[k]) + (1 - alpha) * (x[k] - x[k - 1]), epsilon, norm)
        value[k + 1] = f(x[k + 1])
        looked_at.append(x[k + 1])
        if value[k + 1] > f_max:
            f_max, x_max = value[k + 1], x[k + 1]
        f_max_at[k], eta_at[k] = f_max, eta
        if k in marks:
            risen = sum(value[i + 1] > value[i] for i in range(previous, k))
            first = risen < rho * (k - previous)
            second = eta_at[previous] == eta_at[k] and f_max_at[previous] == f_max_at[k]
            if first or second:
                eta = eta / 2
                x[k + 1], value[k + 1] = x_max, f_max
            previous = k
    return Climbed(looked_at, x_max, f_max, eta)

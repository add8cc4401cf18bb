"""Robust accuracy of a linear bag-of-words classifier, twice: in closed form, and by PGD one row at a time.

The classifier's logits are ``W mean_t(E_t + delta_t) + b`` over the T tokens of one sentence, E (T, D). Nothing is
skipped or batched here: every row is attacked at every radius, with gradients derived by hand, in float64.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def logits(sentence: Array, weight: Array, bias: Array) -> Array:
    return weight @ sentence.mean(0) + bias


def loss_gradient(sentence: Array, weight: Array, bias: Array, label: int) -> Array:
    """Gradient (T, D) of the cross-entropy: every token gets ``W^T (softmax - onehot) / T``."""
    z = logits(sentence, weight, bias)
    p = np.exp(z - z.max()) / np.exp(z - z.max()).sum()
    p[label] -= 1
    return np.tile(weight.T @ p / len(sentence), (len(sentence), 1))


def broken_by_pgd(
    sentence: Array, weight: Array, bias: Array, label: int, epsilon: float, step_size: float, steps: int, norm: str
) -> bool:
    """PGD from zero; broken if any iterate, the first and the last included, is not classified as ``label``."""
    delta = np.zeros_like(sentence)
    for step in range(steps + 1):
        if int(np.argmax(logits(sentence + delta, weight, bias))) != label:
            return True
        if step == steps:
            break
        gradient = loss_gradient(sentence + delta, weight, bias, label)
        if norm == "linf":
            delta = np.clip(delta + step_size * np.sign(gradient), -epsilon, epsilon)
        else:
            delta = delta + step_size * gradient / math.sqrt((gradient**2).sum())
            size = math.sqrt((delta**2).sum())
            if size > epsilon:
                delta = delta * epsilon / size
    return False


def correct_under_pgd(
    sentences: Sequence[Array],
    weight: Array,
    bias: Array,
    labels: Sequence[int],
    epsilons: Sequence[float],
    *,
    steps: int,
    norm: str,
    relative: bool,
) -> dict[float, list[bool]]:
    """Which rows survive each radius and all smaller ones; the step is 2.5 epsilon / steps."""
    correct: dict[float, list[bool]] = {}
    for epsilon in epsilons:
        correct[epsilon] = []
        for sentence, label in zip(sentences, labels, strict=True):
            length = np.abs(sentence).max() if norm == "linf" else math.sqrt((sentence**2).sum())
            broken = False
            for radius in [e for e in epsilons if e <= epsilon]:
                radius = radius * length if relative else radius
                broken |= broken_by_pgd(sentence, weight, bias, label, radius, 2.5 * radius / steps, steps, norm)
            correct[epsilon].append(not broken)
    return correct


def radius_of_two_classes(sentence: Array, weight: Array, bias: Array, label: int, norm: str) -> float:
    """Least norm of a perturbation that flips a classifier of two classes: margin / dual norm; negative if wrong.

    The margin ``(w_y - w_o) mean(E) + b_y - b_o`` changes by ``(w_y - w_o) mean(delta)``: at most
    ``epsilon ||w_y - w_o||_2 / sqrt(T)`` in an L2 ball and ``epsilon ||w_y - w_o||_1`` in an Linf ball.
    """
    z = logits(sentence, weight, bias)
    difference = weight[label] - weight[1 - label]
    slope = np.abs(difference).sum() if norm == "linf" else math.sqrt((difference**2).sum() / len(sentence))
    return float((z[label] - z[1 - label]) / slope)

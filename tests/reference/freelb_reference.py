"""FreeLB (Zhu et al. 2020, Algorithm 1) on a softmax classifier of weighted word embeddings, gradients by hand.

Logits of a sentence are ``W sum_t a_t (E[id_t] + delta_t) + b``: the weights ``a`` give each position a gradient of
its own size. One sentence at a time, float64, nothing padded.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass
class Classifier:
    """``table`` (V, D), ``weight`` (C, D), ``bias`` (C,), ``places`` (T,): a of each position."""

    table: Array
    weight: Array
    bias: Array
    places: Array

    def loss_and_slopes(self, ids: list[int], label: int, delta: Array) -> tuple[float, Array, dict[str, Array]]:
        """Cross-entropy of one sentence; its gradient at delta (T, D); its gradient at the parameters."""
        h = np.zeros(self.table.shape[1])
        for t, token in enumerate(ids):
            h += self.places[t] * (self.table[token] + delta[t])
        logits = self.weight @ h + self.bias
        log_sum = logits.max() + math.log(np.exp(logits - logits.max()).sum())
        error = np.exp(logits - log_sum)
        error[label] -= 1
        back = self.weight.T @ error
        table = np.zeros_like(self.table)
        for t, token in enumerate(ids):
            table[token] += self.places[t] * back
        at_delta = np.stack([self.places[t] * back for t in range(len(ids))])
        return log_sum - logits[label], at_delta, {"table": table, "weight": np.outer(error, h), "bias": error}


def counts(steps: int, convention: str) -> tuple[int, int]:
    """Forward-backwards and ascents of one training step with K = ``steps``.

    Algorithm 1 and the authors' Hugging Face code run K passes, of which the last one's ascent is never used; their
    fairseq code runs one more.
    """
    return {"hf": (steps, steps - 1), "fairseq": (steps + 1, steps)}[convention]


def size(delta: Array, norm: str) -> float:
    """Over the whole sentence."""
    values = [abs(float(v)) for v in delta.ravel()]
    return max(values) if norm == "linf" else math.sqrt(sum(v * v for v in values))


def project(delta: Array, epsilon: float | None, norm: str) -> Array:
    """Onto the ball around zero; None is no limit."""
    if epsilon is None:
        return delta
    if norm == "linf":
        return np.clip(delta, -epsilon, epsilon)
    length = size(delta, norm)
    return delta * (epsilon / length) if length > epsilon else delta


def start(uniform: Array, gamma: float, epsilon: float | None, norm: str) -> Array:
    """delta_0 from draws in [-1, 1] (T, D), T the sentence's own length.

    L2: ``u gamma / sqrt(T D)``, whose squared norm is gamma^2 / 3 in the mean; Linf: ``u gamma``. The authors' code
    does not project it; the ball of Algorithm 1 does.
    """
    scale = gamma if norm == "linf" else gamma / math.sqrt(uniform.size)
    return project(uniform * scale, epsilon, norm)


def step(delta: Array, grad: Array, step_size: float, epsilon: float | None, norm: str) -> Array:
    """``project(delta + step_size g / ||g||)``: for Linf, too, the gradient divided by its norm and not its sign."""
    return project(delta + step_size * grad / size(grad, norm), epsilon, norm)


def freelb(
    model: Classifier,
    sentences: list[list[int]],
    labels: list[int],
    starts: list[Array],
    *,
    steps: int,
    step_size: float,
    epsilon: float | None,
    norm: str,
    convention: str,
) -> tuple[list[list[Array]], list[float], dict[str, Array]]:
    """One training step: deltas [pass][sentence], the mean loss of each pass, and the parameters' gradient.

    The gradient is the mean over passes of that of the batch's mean loss (Algorithm 1, line 7).
    """
    passes, ascents = counts(steps, convention)
    deltas, losses = [list(starts)], []
    total = {name: np.zeros_like(getattr(model, name)) for name in ("table", "weight", "bias")}
    for k in range(passes):
        losses.append(0.0)
        moved = []
        for ids, label, delta in zip(sentences, labels, deltas[k], strict=True):
            loss, at_delta, slopes = model.loss_and_slopes(ids, label, delta)
            losses[k] += loss / len(sentences)
            for name, slope in slopes.items():
                total[name] += slope / len(sentences) / passes
            moved.append(step(delta, at_delta, step_size, epsilon, norm))
        if k < ascents:
            deltas.append(moved)
    return deltas, losses, total


def random_sentence(random: np.random.Generator, length: int, words: int, width: int) -> tuple[list[int], Array]:
    """Ids and a perturbation."""
    return random.integers(words, size=length).tolist(), random.normal(size=(length, width))


def slope_by_differences(model: Classifier, ids: list[int], label: int, delta: Array, h: float = 1e-5) -> Array:
    """What `Classifier.loss_and_slopes` derives by hand at delta."""
    result = np.zeros_like(delta)
    for index in np.ndindex(*delta.shape):
        ends = []
        for sign in (1, -1):
            moved = delta.copy()
            moved[index] += sign * h
            ends.append(model.loss_and_slopes(ids, label, moved)[0])
        result[index] = (ends[0] - ends[1]) / (2 * h)
    return result

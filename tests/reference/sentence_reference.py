"""Unsupervised sentence embeddings in plain loops: IS-BERT's estimator, ConSERT's loss, whitening, log-determinants."""

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def softplus(x: float) -> float:
    return max(x, 0.0) + math.log1p(math.exp(-abs(x)))


def isbert_loss(tokens: Array, lengths: list[int], sentences: Array) -> float:
    """IS-BERT eqs. (1) and (2) (Zhang et al. 2020), negated: the Jensen-Shannon estimate of I(token; sentence).

    ``tokens`` (B, T, D), of which ``lengths`` are real, and ``sentences`` (B, D), scored by their dot product. The mean
    of -softplus(-T) over pairs of a token and its own sentence, less the mean of softplus(T) over pairs of a token and
    another sentence of the batch.
    """
    own, other = [], []
    for i, row in enumerate(tokens):
        for token in row[: lengths[i]]:
            for k, sentence in enumerate(sentences):
                t = sum(float(a) * float(b) for a, b in zip(token, sentence, strict=True))
                if i == k:
                    own.append(-softplus(-t))
                else:
                    other.append(softplus(t))
    return -(sum(own) / len(own) - sum(other) / len(other))


def ngrams(tokens: Array, length: int, weight: Array, bias: Array) -> Array:
    """A convolution over one sentence (T, D) with ReLU, zeros beyond its real tokens: (T, filters).

    ``weight`` (filters, D, width), width odd.
    """
    width = weight.shape[2]
    result = np.zeros((len(tokens), len(weight)))
    for t in range(length):
        for f in range(len(weight)):
            value = float(bias[f])
            for k in range(width):
                place = t + k - width // 2
                if 0 <= place < length:
                    value += sum(float(a) * float(b) for a, b in zip(tokens[place], weight[f, :, k], strict=True))
            result[t, f] = max(value, 0.0)
    return result


def nt_xent(first: Array, second: Array, t: float) -> float:
    """ConSERT eq. (1) (Yan et al. 2021): each of 2B views against its partner among the other 2B - 1."""
    views = [*first, *second]
    n = len(first)
    losses = []
    for i in range(2 * n):
        logits = {k: _cosine(views[i], views[k]) / t for k in range(2 * n) if k != i}
        largest = max(logits.values())
        total = largest + math.log(sum(math.exp(v - largest) for v in logits.values()))
        losses.append(total - logits[(i + n) % (2 * n)])
    return sum(losses) / len(losses)


def _cosine(a: Array, b: Array) -> float:
    dot = sum(float(x) * float(y) for x, y in zip(a, b, strict=True))
    return dot / (math.sqrt(sum(float(x) ** 2 for x in a)) * math.sqrt(sum(float(y) ** 2 for y in b)))


def whitening(x: Array, k: int | None = None) -> tuple[Array, Array]:
    """BERT-whitening (Su et al. 2021), Algorithm 1: the mean (D,) and W = (U S^-1/2)[:, :k] of ``x`` (N, D)."""
    n, d = x.shape
    mean = np.array([sum(float(v) for v in x[:, j]) / n for j in range(d)])
    covariance = np.zeros((d, d))
    for row in x:
        covariance += np.outer(row - mean, row - mean) / n
    u, s, _ = np.linalg.svd(covariance)
    return mean, (u @ np.diag(1 / np.sqrt(s)))[:, :k]


def covariance(x: Array, ddof: int = 0) -> Array:
    """Of rows, by the double loop."""
    mean = x.sum(0) / len(x)
    total = np.zeros((x.shape[1], x.shape[1]))
    for row in x:
        total += np.outer(row - mean, row - mean)
    return total / (len(x) - ddof)


def log_determinant(function: Callable[[Array], Array], at: Array, h: float = 1e-4) -> float:
    """log |det| of the Jacobian of ``function`` (D,) -> (D,), column by column by central differences."""
    columns = []
    for j in range(len(at)):
        ends = []
        for sign in (1, -1):
            moved = at.copy()
            moved[j] += sign * h
            ends.append(np.asarray(function(moved), dtype=np.float64))
        columns.append((ends[0] - ends[1]) / (2 * h))
    sign, value = np.linalg.slogdet(np.stack(columns, axis=1))
    assert sign != 0
    return float(value)


def normal_log_density(z: Array) -> float:
    """Of a standard normal at one point (D,)."""
    return -sum(0.5 * float(v) ** 2 + 0.5 * math.log(2 * math.pi) for v in z)


def cut(values: Array, places: list[tuple[int, int]], whole: bool) -> Array:
    """ConSERT's cut-offs of one sentence (T, D): tokens, or features, at ``places`` are zero."""
    result = np.array(values)
    for t, j in places:
        if whole:
            result[t] = 0
        else:
            result[t, j] = 0
    return result

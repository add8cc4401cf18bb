"""RAR (Qiu et al. 2021, section 3.3): the reconstructor and its loss, token by token, in float64."""

import math

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def gelu(x: float) -> float:
    """``x Phi(x)``, exact."""
    return 0.5 * x * (1 + math.erf(x / math.sqrt(2)))


def gelu_tanh(x: float) -> float:
    """ALBERT's ``gelu_new``."""
    return 0.5 * x * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def reconstruct(
    token: Array,
    dense: Array,
    dense_bias: Array,
    scale: Array,
    shift: Array,
    table: Array,
    bias: Array,
    *,
    activation: str = "gelu",
    eps: float = 1e-12,
) -> Array:
    """Logits over the vocabulary (V,) of one hidden state (H,): dense, GELU, layer norm, decoder tied to ``table``.

    ``dense`` (D, H); ``table`` (V, D), the word embeddings.
    """
    act = {"gelu": gelu, "gelu_tanh": gelu_tanh}[activation]
    hidden = [act(float(row @ token) + float(b)) for row, b in zip(dense, dense_bias, strict=True)]
    mean = sum(hidden) / len(hidden)
    variance = sum((v - mean) ** 2 for v in hidden) / len(hidden)
    normed = np.array(
        [(v - mean) / math.sqrt(variance + eps) * float(a) + float(b)
         for v, a, b in zip(hidden, scale, shift, strict=True)]
    )  # fmt: skip
    return table @ normed + bias


def reconstruction_loss(logits: Array, ids: list[list[int]], mask: list[list[int]]) -> float:
    """L_R: cross-entropy of every real token's own id, the mean over real tokens. ``logits`` (B, T, V)."""
    losses = []
    for row, tokens, real in zip(logits, ids, mask, strict=True):
        for scores, token, is_real in zip(row, tokens, real, strict=True):
            if is_real:
                largest = max(float(s) for s in scores)
                total = largest + math.log(sum(math.exp(float(s) - largest) for s in scores))
                losses.append(total - float(scores[token]))
    return sum(losses) / len(losses)


def reconstructor_parameters(hidden: int, embedding: int, vocab_size: int) -> int:
    """New ones: dense and its bias, layer norm, the decoder's bias; its matrix is the embedding table."""
    return hidden * embedding + embedding + 2 * embedding + vocab_size

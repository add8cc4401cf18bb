"""From the hidden states of tokens to one vector a sentence."""

from collections.abc import Sequence
from typing import Literal

from torch import Tensor

Pooling = Literal["cls", "mean", "first-last", "last-two"]

LAYERS: dict[str, tuple[int, int]] = {"first-last": (1, -1), "last-two": (-2, -1)}
"""Of poolings that read two layers, which: places in ``hidden_states``, where 0 is the output of the embeddings."""


def mean_pool(tokens: Tensor, mask: Tensor) -> Tensor:
    """The mean (B, H) over the real ones of ``tokens`` (B, T, H); ``mask`` (B, T) is 1 where they are."""
    weights = mask.unsqueeze(-1).to(tokens.dtype)
    return (tokens * weights).sum(1) / weights.sum(1).clamp(min=1)


def pool(tokens: Tensor, mask: Tensor, pooling: Pooling, hidden: Sequence[Tensor] | None = None) -> Tensor:
    """A vector for each row, (B, H).

    Args:
        tokens: (B, T, H), last hidden states.
        mask: (B, T), 1 on real tokens.
        pooling: the first token (``"cls"``); the mean over real tokens (``"mean"``), of the mean of the first and the
            last layer (``"first-last"``, BERT-flow and BERT-whitening), or of the last two (``"last-two"``, ConSERT).
        hidden: the output of the embeddings and of each layer, where ``pooling`` reads two layers (`LAYERS`).
    """
    if pooling == "cls":
        return tokens[:, 0]
    if pooling in LAYERS:
        assert hidden is not None
        one, other = LAYERS[pooling]
        tokens = (hidden[one] + hidden[other]) / 2
    return mean_pool(tokens, mask)

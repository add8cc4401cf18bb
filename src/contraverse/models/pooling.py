"""Pooling: one vector a sentence from the hidden states of its tokens."""

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

from contraverse.errors import UserError

Pooling = Literal["cls", "last", "mean", "max", "mean-sqrt-len", "weighted-mean", "first-last", "last-two"]

LAYERS: dict[str, tuple[int, int]] = {"first-last": (1, -1), "last-two": (-2, -1)}
"""Layers of the poolings that read two: places in ``hidden_states``, where 0 is the output of the embeddings."""


def check_pooling(name: str) -> None:
    """Refuse a pooling that does not exist.

    Raises:
        UserError: the name is none of `Pooling`.
    """
    if name not in get_args(Pooling):
        raise UserError(f"no pooling is called {name!r}", hint=f"known: {', '.join(get_args(Pooling))}")


def mean_pool(tokens: Tensor, mask: Tensor) -> Tensor:
    """The mean (B, H) of ``tokens`` (B, T, H) with weights ``mask`` (B, T): 1 on real tokens, 0 on padding."""
    weights = mask.unsqueeze(-1).to(tokens.dtype)  # (B, T, 1)
    return (tokens * weights).sum(1) / weights.sum(1).clamp(min=1)


def last_place(real: Tensor) -> Tensor:
    """Place (B,) of the last True of each row of ``real`` (B, T); 0 in a row without one."""
    places = torch.arange(real.shape[1], device=real.device)  # (T,)
    return (places * real).argmax(1)


def take(tokens: Tensor, places: Tensor) -> Tensor:
    """Rows (B, H) of ``tokens`` (B, T, H) at ``places`` (B,)."""
    return tokens.gather(1, places.view(-1, 1, 1).expand(-1, 1, tokens.shape[-1])).squeeze(1)


def pool(tokens: Tensor, mask: Tensor, pooling: Pooling, hidden: Sequence[Tensor] | None = None) -> Tensor:
    """A vector for each row, (B, H).

    Args:
        tokens: (B, T, H), last hidden states.
        mask: (B, T), 1 on real tokens.
        pooling: the first token (``"cls"``) or the last real one (``"last"``); the mean over real tokens (``"mean"``),
            of the mean of the first and the last layer (``"first-last"``, BERT-flow and BERT-whitening), or of the
            last two (``"last-two"``, ConSERT); the largest value in each dimension (``"max"``); the sum over the root
            of the number of tokens (``"mean-sqrt-len"``); the mean with weights 1, 2, ... (``"weighted-mean"``, SGPT).
        hidden: the output of the embeddings and of each layer, where ``pooling`` reads two layers (`LAYERS`).
    """
    if pooling == "cls":
        return tokens[:, 0]
    if pooling == "last":
        return take(tokens, last_place(mask.bool()))
    if pooling == "max":
        # A finite floor: a row without tokens pools to something that is no infinity.
        return tokens.masked_fill(~mask.bool().unsqueeze(-1), torch.finfo(tokens.dtype).min).amax(1)
    if pooling == "mean-sqrt-len":
        weights = mask.unsqueeze(-1).to(tokens.dtype)  # (B, T, 1)
        return (tokens * weights).sum(1) / weights.sum(1).clamp(min=1).sqrt()
    if pooling == "weighted-mean":
        # Counted from the first place on: padding is on the right.
        return mean_pool(tokens, mask * torch.arange(1, mask.shape[1] + 1, device=mask.device))
    if pooling in LAYERS:
        assert hidden is not None
        lower, upper = LAYERS[pooling]
        tokens = (hidden[lower] + hidden[upper]) / 2
    return mean_pool(tokens, mask)

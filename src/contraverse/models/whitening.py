"""BERT-whitening (Su et al., 2021): embeddings with mean zero and covariance one."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from contraverse.errors import UserError
from contraverse.models.postprocess import DenseLayer, Postprocess, embeddings_of

if TYPE_CHECKING:
    from contraverse.models.text import TextModel

SMALLEST = 1e-8
"""Directions whose variance is below this part of the largest one hold rounding errors alone: there always is one where
the last thing that an encoder does is a layer norm, whose output it ties to a hyperplane."""


class Whitening(Postprocess):
    """``(x - mu) W``, held as one linear layer.

    Args:
        width: D, of the embeddings that come in.
        dim: how many dimensions are kept.
    """

    name = "whitening"

    def __init__(self, width: int, dim: int) -> None:
        super().__init__()
        self.settings: dict[str, Any] = {"width": width, "dim": dim}
        self.register_buffer("weight", torch.zeros(dim, width))
        self.register_buffer("bias", torch.zeros(dim))
        self.weight: Tensor
        self.bias: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """``x`` (N, D) -> (N, dim)."""
        return F.linear(x, self.weight, self.bias)

    def dense_layers(self) -> list[DenseLayer]:
        """One, without an activation."""
        return [DenseLayer(self.weight, self.bias)]


def fit_whitening(
    model: "TextModel", sentences: Sequence[str], *, dim: int | None = None, batch_size: int = 64
) -> Whitening:
    """The whitening of ``model``'s embeddings of ``sentences``: Algorithm 1.

        mu = mean of x,  U S U^T = mean of (x - mu)^T (x - mu),  W = (U S^-1/2)[:, :dim]

    Give training sentences: what is fitted on test sentences has seen the test. Set the result as
    ``model.postprocess``.

    Args:
        model: a sentence encoder without a ``postprocess``.
        sentences: more than ``dim``; many times as many give steadier figures.
        dim: how many dimensions are kept, those of the largest variance; None keeps all in which the embeddings vary.
        batch_size: sentences at a time.

    Raises:
        UserError: the model has a ``postprocess`` already, or the embeddings vary in fewer directions than ``dim``.
    """
    x = embeddings_of(model, sentences, batch_size)
    mean = x.mean(0)
    centred = x - mean
    variances, directions = np.linalg.eigh(centred.T @ centred / len(x))
    variances, directions = variances[::-1], directions[:, ::-1]
    usable = min(int((variances > SMALLEST * variances[0]).sum()), len(x) - 1) if variances[0] > 0 else 0
    kept = usable if dim is None else dim
    if not 1 <= kept <= usable:
        raise UserError(
            f"cannot keep {kept} dimensions: the embeddings of these {len(x)} sentences vary in {usable}",
            hint="give more sentences, or keep fewer dimensions",
        )
    weight = directions[:, :kept] / np.sqrt(variances[:kept])
    whitening = Whitening(x.shape[1], kept).to(model.device)
    whitening.weight.copy_(torch.from_numpy(weight.T.copy()))
    whitening.bias.copy_(torch.from_numpy(-mean @ weight))
    return whitening

"""Postprocessing of sentence embeddings, fitted once to an encoder."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np
from torch import Tensor, nn

from contraverse.errors import UserError

if TYPE_CHECKING:
    from contraverse.models.text import TextModel


class DenseLayer(NamedTuple):
    """``weight @ x + bias``, followed by a ReLU if ``relu``."""

    weight: Tensor
    bias: Tensor
    relu: bool = False


class Postprocess(nn.Module, ABC):
    """A fitted map of embeddings, (N, D) -> (N, dim): it is saved with the model and never trained with it.

    ``name``: in the saved folder and on the command line. ``settings``: arguments of the constructor when a
    folder is read; the weights follow.
    """

    name: ClassVar[str]
    settings: dict[str, Any]

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """The embeddings ``x`` (N, D) after it, (N, dim)."""

    @abstractmethod
    def dense_layers(self) -> list[DenseLayer]:
        """The same map as dense layers in a row, which is how sentence-transformers can run it."""


def embeddings_of(model: "TextModel", sentences: Sequence[str], batch_size: int) -> np.ndarray:
    """Embeddings that a map is fitted on, (N, D) in fp64.

    Raises:
        UserError: the model has a map already, or there are fewer than two sentences.
    """
    if model.postprocess is not None:
        raise UserError(
            f"the model has a {model.postprocess.name} already", hint="take the model before it, or set it to None"
        )
    if len(sentences) < 2:
        raise UserError(f"nothing can be fitted to {len(sentences)} sentences", hint="give training sentences")
    return model.encode(sentences, batch_size).astype(np.float64)

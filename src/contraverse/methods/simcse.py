"""SimCSE (Gao, Yao and Chen, 2021), unsupervised and supervised."""

from collections.abc import Iterator

from pydantic import validate_call
from torch import nn

from contraverse.functional import info_nce
from contraverse.methods.settings import PROJECTION, Projection, Temperature, projection_of
from contraverse.types import Batch, Loss, Method


class SimCSE(Method):
    """A sentence's positive is itself under another dropout mask: ``L = InfoNCE(z, z')``, SCAL eq. (4).

    Batch: sentences. Cost: 2F + 2B = 6F. The model must be in training mode: without dropout the views are
    equal and nothing is learned. At test the head is dropped (``model.embedding="h"``), as the authors do for
    BERT, or kept (``"z"``).

    Args:
        temperature: > 0.
        projection: z is a ``"new"`` linear layer and tanh on h, or the encoder's own ``"pooler"``.
    """

    name = "simcse"
    summary = "InfoNCE between two dropout views of a sentence"
    paper = "SimCSE"
    equation = "(4) of SimCSE; (4) of SCAL/USCAL"
    modality = "text"
    requires = "inputs"
    cost = "6F"
    heads = PROJECTION

    @validate_call
    def __init__(self, *, temperature: Temperature = 0.05, projection: Projection = "new") -> None:
        super().__init__()
        self.temperature, self.heads = temperature, projection_of(projection)

    def losses(self, model: nn.Module, batch: Batch) -> Iterator[Loss]:
        first, second = (model(batch, want=("z",)).z for _ in range(2))
        contrast = info_nce(first, second, self.temperature)
        yield Loss(contrast, {"contrast": contrast.detach()})


class SupervisedSimCSE(Method):
    """Positives come with the data (NLI: entailments), and hard negatives if there are any (contradictions).

        L = -log exp(sim(z_i, z_i^+)/t) / sum_k (exp(sim(z_i, z_k^+)/t) + exp(sim(z_i, z_k^-)/t))

    Batch: sentences with ``positive`` and, optionally, ``negative``. Cost: 3F + 3B = 9F, or 6F without
    negatives. The head is kept at test (``model.embedding="z"``), as the authors do.

    Args:
        temperature: > 0.
        projection: z is a ``"new"`` linear layer and tanh on h, or the encoder's own ``"pooler"``.
    """

    name = "simcse-sup"
    summary = "InfoNCE between given pairs, with hard negatives where the data has them"
    paper = "SimCSE"
    equation = "(5) of SimCSE"
    modality = "text"
    requires = "pairs"
    cost = "9F"
    heads = PROJECTION

    @validate_call
    def __init__(self, *, temperature: Temperature = 0.05, projection: Projection = "new") -> None:
        super().__init__()
        self.temperature, self.heads = temperature, projection_of(projection)

    def losses(self, model: nn.Module, batch: Batch) -> Iterator[Loss]:
        anchor = model(batch, want=("z",)).z
        positive = model(batch["positive"], want=("z",)).z
        negatives = model(batch["negative"], want=("z",)).z if "negative" in batch else None
        contrast = info_nce(anchor, positive, self.temperature, negatives=negatives)
        yield Loss(contrast, {"contrast": contrast.detach()})

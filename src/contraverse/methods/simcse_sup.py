"""Supervised SimCSE (Gao, Yao and Chen, 2021)."""

from collections.abc import Iterator

from torch import nn

from contraverse.functional import info_nce
from contraverse.methods._settings import PROJECTION, Projection, Temperature, projection_head, settings
from contraverse.types import Batch, Loss, Method


@settings
class SupervisedSimCSE(Method):
    """InfoNCE on labelled pairs (NLI: entailments), with hard negatives where the data has them (contradictions).

        L = -log exp(sim(z_i, z_i^+)/t) / sum_k (exp(sim(z_i, z_k^+)/t) + exp(sim(z_i, z_k^-)/t))

    Batch: sentences with ``positive`` and, optionally, ``negative``. Cost: 3F + 3B = 9F, or 6F without
    negatives. The head is kept at test (``model.embedding="z"``), as the authors do.
    """

    name = "simcse-sup"
    summary = "InfoNCE between pairs from the data, with hard negatives if given"
    paper = "SimCSE"
    equation = "(5) of SimCSE"
    modality = "text"
    requires = "pairs"
    in_batch_negatives = True
    cost = "9F"
    graphs = 3
    gathered = 2
    heads = PROJECTION

    temperature: Temperature = 0.05
    """Temperature t of InfoNCE; the paper's value."""
    projection: Projection = "new"
    """Layer that gives z: a `new` linear layer with tanh on the pooled features, or the encoder's own `pooler`."""

    def setup(self) -> None:
        self.heads = projection_head(self.projection)

    def losses(self, model: nn.Module, batch: Batch) -> Iterator[Loss]:
        anchor = model(batch, want=("z",)).z
        positive = model(batch["positive"], want=("z",)).z
        negatives = model(batch["negative"], want=("z",)).z if "negative" in batch else None
        contrast = info_nce(anchor, positive, self.temperature, negatives=negatives)
        yield Loss(contrast, {"contrast": contrast.detach()})

"""SimCSE (Gao, Yao and Chen, 2021), unsupervised."""

from collections.abc import Iterator

from torch import nn

from contraverse.functional import info_nce
from contraverse.methods._settings import PROJECTION, Projection, Temperature, projection_head, settings
from contraverse.methods._views import NoisyViews, contrast_of_rows
from contraverse.types import Batch, Loss


@settings
class SimCSE(NoisyViews):
    """InfoNCE in which a sentence's positive is itself under another dropout mask: ``L = InfoNCE(z, z')``.

    The equation is SCAL's (4). With noise (``data.noise``) the positive is the noisy text.

    Batch: sentences. Cost: 2F + 2B = 6F. The model must be in training mode: without dropout the views are equal and
    nothing is learned. At test the head is dropped (``model.embedding="h"``), as the authors do for BERT, or kept
    (``"z"``).
    """

    name = "simcse"
    summary = "InfoNCE between two dropout views of a sentence"
    paper = "SimCSE"
    equation = "(4) of SimCSE; (4) of SCAL/USCAL"
    modality = "text"
    requires = "inputs"
    in_batch_negatives = True
    text_views = 2
    cost = "6F"
    graphs = 2
    gathered = 1
    heads = PROJECTION

    temperature: Temperature = 0.05
    """Temperature of InfoNCE; the paper's value."""
    projection: Projection = "new"
    """Layer that gives z: a `new` linear layer with tanh on the pooled features, or the encoder's own `pooler`."""

    def setup(self) -> None:
        super().setup()
        self.heads = projection_head(self.projection)
        self.cost_with_noise = f"{6 + self.choice_cost}F"

    def losses(self, model: nn.Module, batch: Batch) -> Iterator[Loss]:
        first = model(batch, want=("z",)).z
        view = self.noisy_view(
            batch, lambda draw: contrast_of_rows(first, model(draw, want=("z",)).z, self.temperature)
        )
        second = model(view, want=("z",)).z
        contrast = info_nce(first, second, self.temperature)
        yield Loss(contrast, {"contrast": contrast.detach()})

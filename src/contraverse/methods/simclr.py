"""SimCLR (Chen et al., 2020): ACL's standard-to-standard (S2S) contrast."""

from collections.abc import Iterator

from pydantic import validate_call
from torch import nn

from contraverse.functional import nt_xent
from contraverse.methods.settings import HeadDim, HeadLayers, Temperature, mlp_projection
from contraverse.methods.views import both_views
from contraverse.types import Batch, Loss, Method


class SimCLR(Method):
    """Each view finds the other view of its input among all views of the batch.

        l_NT = -log exp(sim(z_i, z_j)/t) / sum_{k != i} exp(sim(z_i, z_k)/t),  mean over all 2B views

    The views are two random augmentations of an image, or two dropout masks of a sentence, and go through the model
    in one pass. A dual batch norm's clean set is used and trained.

    Batch: images with a second view as ``positive``, or sentences. Cost: 2F + 2B = 6F.

    Args:
        temperature: t, > 0.
        head_layers: linear layers of the projection head, >= 1.
        head_dim: width of what the head gives, >= 1; None: the encoder's.
    """

    name = "simclr"
    summary = "NT-Xent between two views of an image"
    paper = "SimCLR"
    equation = "(1) of SimCLR; S2S of ACL"
    requires = "inputs"
    image_views = 2
    cost = "6F"

    @validate_call
    def __init__(
        self, *, temperature: Temperature = 0.5, head_layers: HeadLayers = 3, head_dim: HeadDim = None
    ) -> None:
        super().__init__()
        self.temperature = temperature
        self.heads = mlp_projection(head_layers, head_dim)

    def losses(self, model: nn.Module, batch: Batch) -> Iterator[Loss]:
        first, second = model(both_views(batch), want=("z",)).z.chunk(2)
        contrast = nt_xent(first, second, self.temperature)
        yield Loss(contrast, {"contrast": contrast.detach()})

"""SimCLR (Chen et al., 2020): ACL's standard-to-standard (S2S) contrast."""

from collections.abc import Iterator

from torch import nn

from contraverse.functional import nt_xent
from contraverse.methods._settings import HeadDim, HeadLayers, Temperature, mlp_projection, settings
from contraverse.methods._views import both_views
from contraverse.types import Batch, Loss, Method


@settings
class SimCLR(Method):
    """NT-Xent between two views of each input, with all other views of the batch as negatives.

        l_NT = -log exp(sim(z_i, z_j)/t) / sum_{k != i} exp(sim(z_i, z_k)/t),  mean over all 2B views

    The views are two random augmentations of an image, or two dropout masks of a sentence, and go through the model
    in one pass. With dual batch norm the clean branch is used and trained.

    Batch: images with a second view as ``positive``, or sentences. Cost: 2F + 2B = 6F.
    """

    name = "simclr"
    summary = "NT-Xent between two views of an image or sentence"
    paper = "SimCLR"
    equation = "(1) of SimCLR; S2S of ACL"
    requires = "inputs"
    in_batch_negatives = True
    image_views = 2
    cost = "6F"
    graphs = 2
    gathered = 2

    temperature: Temperature = 0.5
    """Temperature t of NT-Xent; ACL's value."""
    head_layers: HeadLayers = 3
    """Linear layers of the projection head; ACL's value, SimCLR has 2."""
    head_dim: HeadDim = None
    """Width of z; null: the encoder's, as in ACL. SimCLR has 128."""

    def setup(self) -> None:
        self.heads = mlp_projection(self.head_layers, self.head_dim)

    def losses(self, model: nn.Module, batch: Batch) -> Iterator[Loss]:
        first, second = model(both_views(batch), want=("z",)).z.chunk(2)  # (B, Z) each
        contrast = nt_xent(first, second, self.temperature)
        yield Loss(contrast, {"contrast": contrast.detach()})

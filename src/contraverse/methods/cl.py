"""Contrastive fine-tuning on dropout views: the "+CL" rows of SCAL's Tables 4 and 5."""

from collections.abc import Iterator

from torch import Tensor, nn

from contraverse.functional import SameClass, info_nce, supervised_loss
from contraverse.methods._settings import (
    PROJECTION,
    Projection,
    Temperature,
    Weight,
    projection_head,
    require_classes,
    settings,
)
from contraverse.methods._views import NoisyViews, contrast_of_rows
from contraverse.types import Batch, Loss, TrainingInfo


@settings
class Contrastive(NoisyViews):
    """Cross-entropy and InfoNCE on two dropout views: SCAL eq. (8) with a second dropout view as the positive.

        L = 1/2 (CE(x, y) + CE(x', y)) + alpha * InfoNCE(z, z')

    where x' is x under another dropout mask. Only the view differs from SCAL, so that a comparison of the two shows the
    effect of the attack. With noise (``data.noise``) x' is the noisy text. Departure: the paper does not define "+CL".

    Batch: ``labels``. Cost: 2F + 2B = 6F.
    """

    name = "cl"
    summary = "cross-entropy and InfoNCE on two dropout views"
    paper = "SCAL/USCAL"
    equation = "(4), (8) on dropout views"
    modality = "text"
    requires = "labels"
    in_batch_negatives = True
    text_views = 2
    cost = "6F"
    graphs = 2
    gathered = 1
    heads = PROJECTION
    test_settings = {"cl-positives": {"same_class": "positives"}}

    alpha: Weight = 0.1
    """Weight of the contrastive loss; the paper only says below one."""
    temperature: Temperature = 0.05
    """Temperature of InfoNCE; SCAL's value."""
    same_class: SameClass = "negatives"
    """Other rows of the anchor's class: `negatives`, `masked` out of the denominator, or `positives` too."""
    projection: Projection = "new"
    """Layer that gives z: a `new` linear layer and tanh on h, or the encoder's own `pooler`."""

    def setup(self) -> None:
        super().setup()
        self.heads = projection_head(self.projection)
        self.cost_with_noise = f"{6 + self.choice_cost}F"

    def check_data(self, training_info: TrainingInfo) -> None:
        """Check that the labels are classes where ``same_class`` compares them.

        Raises:
            UserError: they are scores.
        """
        require_classes(self.name, self.same_class, training_info)

    def losses(self, model: nn.Module, batch: Batch) -> Iterator[Loss]:
        labels = batch["labels"]
        first = model(batch, want=("logits", "z"))

        def row_losses(draw: Batch) -> Tensor:
            out = model(draw, want=("logits", "z"))
            contrast = contrast_of_rows(first.z, out.z, self.temperature)
            return supervised_loss(out.logits, labels, reduction="none") / 2 + self.alpha * contrast

        second = model(self.noisy_view(batch, row_losses), want=("logits", "z"))
        ce = (supervised_loss(first.logits, labels) + supervised_loss(second.logits, labels)) / 2
        contrast = info_nce(first.z, second.z, self.temperature, labels=labels, same_class=self.same_class)
        yield Loss(ce + self.alpha * contrast, {"ce": ce.detach(), "contrast": contrast.detach()})

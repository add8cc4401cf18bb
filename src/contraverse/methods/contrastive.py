"""Contrastive fine-tuning on dropout views: the "+CL" rows of SCAL's Tables 4 and 5."""

from collections.abc import Iterator

from pydantic import validate_call
from torch import nn

from contraverse.functional import info_nce, supervised_loss
from contraverse.methods.settings import (
    PROJECTION,
    Alpha,
    Projection,
    SameClassRows,
    Temperature,
    projection_of,
    require_classes,
)
from contraverse.types import Batch, Loss, Method, TrainingInfo


class Contrastive(Method):
    """SCAL eq. (8) with a second dropout view in the place of the adversarial one.

        L = 1/2 (CE(x, y) + CE(x', y)) + alpha * InfoNCE(z, z')

    where x' is x under another dropout mask. Only the view differs from SCAL, so the two tell what the
    attack adds. Departure: the paper does not say what "+CL" is.

    Batch: ``labels``. Cost: 2F + 2B = 6F.

    Args:
        alpha: weight of the contrastive loss, >= 0.
        temperature: of InfoNCE, > 0.
        same_class: rows of the anchor's class are ``"negatives"``, ``"masked"`` out of the denominator, or
            ``"positives"`` too, as in SCAL.
        projection: z is a ``"new"`` linear layer and tanh on h, or the encoder's own ``"pooler"``.
    """

    name = "cl"
    summary = "cross-entropy and InfoNCE on two dropout views"
    paper = "SCAL/USCAL"
    equation = "(4), (8) on dropout views"
    modality = "text"
    requires = "labels"
    cost = "6F"
    heads = PROJECTION

    @validate_call
    def __init__(
        self,
        *,
        alpha: Alpha = 0.1,
        temperature: Temperature = 0.05,
        same_class: SameClassRows = "negatives",
        projection: Projection = "new",
    ) -> None:
        super().__init__()
        self.alpha, self.temperature = alpha, temperature
        self.same_class, self.heads = same_class, projection_of(projection)

    def prepare(self, training_info: TrainingInfo) -> None:
        """Check that there are classes where they are read.

        Raises:
            UserError: there are none.
        """
        require_classes(self.name, self.same_class, training_info)

    def losses(self, model: nn.Module, batch: Batch) -> Iterator[Loss]:
        labels = batch["labels"]
        first, second = (model(batch, want=("logits", "z")) for _ in range(2))
        ce = (supervised_loss(first.logits, labels) + supervised_loss(second.logits, labels)) / 2
        contrast = info_nce(first.z, second.z, self.temperature, labels=labels, same_class=self.same_class)
        yield Loss(ce + self.alpha * contrast, {"ce": ce.detach(), "contrast": contrast.detach()})

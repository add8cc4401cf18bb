"""Fine-tuning with cross-entropy: the baseline of every table."""

from collections.abc import Iterator

from torch import nn

from contraverse.functional import supervised_loss
from contraverse.types import Batch, Loss, Method


class CrossEntropy(Method):
    """Cross-entropy on clean inputs, SCAL eq. (5): ``L = CE(x, y)``.

    Batch: ``labels``. Cost: F + B = 3F.
    """

    name = "ce"
    summary = "cross-entropy on clean inputs: the baseline"
    paper = "SCAL/USCAL"
    equation = "(5)"
    requires = "labels"
    cost = "3F"

    def losses(self, model: nn.Module, batch: Batch) -> Iterator[Loss]:
        ce = supervised_loss(model(batch).logits, batch["labels"])
        yield Loss(ce, {"ce": ce.detach()})

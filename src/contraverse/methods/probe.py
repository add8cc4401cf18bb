"""The linear probe: what a classifier makes of features that are not trained."""

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field, validate_call
from torch import Tensor, nn

from contraverse.attacks import NormBall
from contraverse.functional import Norm, supervised_loss
from contraverse.methods.pgd_at import ce_attack
from contraverse.methods.settings import EPSILON, STEP_SIZE, Epsilon, Steps, StepSize
from contraverse.models.modes import evaluating
from contraverse.types import Batch, BNBranch, Loss, Method

Probed = Annotated[
    Literal["none", "pgd"], Field(description="what the classifier is trained on: clean inputs or PGD's")
]


class LinearProbe(Method):
    """A classifier on a frozen encoder, trained on clean inputs or on adversarial ones.

        min_W E [ CE(W h(x), y) ]               attack="none", standard linear fine-tuning (SLF)
        min_W E [ CE(W h(x + delta), y) ]       attack="pgd", adversarial linear fine-tuning (ALF)

    delta is that of `PGDAdversarialTraining`, sought through the encoder and the current classifier. The encoder is in
    eval mode, in the passes that are trained on too: its batch norm uses the statistics of pre-training and keeps
    them, and its dropout is off. So neither a weight nor a buffer of it changes.

    Batch: ``labels``. Cost: F = 1F; k (F + b) more, 21F for ten steps, with ``attack="pgd"``. The gradient to the
    classifier alone weighs nothing. A dual model is probed through its clean batch norms, under attack through its
    adversarial ones.

    Args:
        attack: ``"none"`` or ``"pgd"``.
        epsilon: largest norm of a perturbation, > 0. In the units of the inputs: the default is one of pixels.
        step_size: > 0.
        steps: k, >= 1.
        norm: ``"linf"`` or ``"l2"``, over a whole input.
    """

    name = "probe"
    summary = "a linear classifier on a frozen encoder, on clean or on adversarial inputs"
    paper = "ACL"
    equation = "section 3.2 and Table 5 of ACL"
    requires = "labels"
    trainable = "classifier"

    @validate_call
    def __init__(
        self,
        *,
        attack: Probed = "none",
        epsilon: Epsilon = EPSILON,
        step_size: StepSize = STEP_SIZE,
        steps: Steps = 10,
        norm: Norm = "linf",
    ) -> None:
        super().__init__()
        self.attack, self.steps = attack, steps
        self.bn_branch: BNBranch = "clean"
        if attack == "pgd":
            self.bn_branch, self.ball = "adversarial", NormBall(epsilon, step_size, norm)

    @property
    def cost(self) -> str:  # type: ignore[override]
        """F, and 2F for each step of an attack."""
        return f"{2 * self.steps * (self.attack == 'pgd') + 1}F"

    def losses(self, model: nn.Module, batch: Batch) -> Iterator[Loss]:
        labels, bn_branch = batch["labels"], self.bn_branch
        delta, parts = None, dict[str, Tensor]()
        if self.attack == "pgd":
            attack, parts = ce_attack(model, batch, labels, self.ball, steps=self.steps, bn_branch=bn_branch)
            delta = attack.delta
        with evaluating(model):
            ce = supervised_loss(model(batch, delta=delta, bn_branch=bn_branch).logits, labels)
        yield Loss(ce, {"ce" if delta is None else "ce_adv": ce.detach()} | parts)

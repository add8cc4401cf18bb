"""Linear probe: a classifier on frozen features."""

from collections.abc import Iterator
from typing import Literal

from torch import Tensor, nn

from contraverse.attacks import NormBall
from contraverse.functional import Norm, supervised_loss
from contraverse.methods._settings import EPSILON, STEP_SIZE, Epsilon, Steps, StepSize, settings
from contraverse.methods.pgd_at import ce_attack
from contraverse.models.modes import evaluating
from contraverse.types import Batch, BNBranch, Loss, Method


@settings
class LinearProbe(Method):
    """Linear classifier on a frozen encoder, trained on clean or on adversarial inputs.

        min_W E [ CE(W h(x), y) ]               attack="none", standard linear fine-tuning (SLF)
        min_W E [ CE(W h(x + delta), y) ]       attack="pgd", adversarial linear fine-tuning (ALF)

    delta is that of `PGDAdversarialTraining`, searched through the encoder and the current classifier. The encoder
    stays in eval mode, also in the passes that train the classifier: its batch norm uses the statistics of pre-training
    and keeps them, and its dropout is off. So neither a weight nor a buffer of it changes.

    Batch: ``labels``. Cost: F = 1F; k (F + b) more, 21F for ten steps, with ``attack="pgd"``. The gradient to the
    classifier alone costs next to nothing. A dual model is probed through its clean batch-norm branch, under attack
    through its adversarial one.
    """

    name = "probe"
    summary = "linear classifier on a frozen encoder, on clean or PGD inputs"
    paper = "ACL"
    equation = "section 3.2 and Table 5 of ACL"
    requires = "labels"
    trainable = "classifier"
    test_settings = {"probe-pgd": {"attack": "pgd"}}

    attack: Literal["none", "pgd"] = "none"
    """Inputs that the classifier is trained on: clean ones (`none`), or those of PGD."""
    epsilon: Epsilon = EPSILON
    """Largest norm of a perturbation, in the units of the inputs; the default is for pixels in [0, 1]."""
    step_size: StepSize = STEP_SIZE
    """Length of one attack step."""
    steps: Steps = 10
    """Number k of attack steps."""
    norm: Norm = "linf"
    """Norm of the perturbation, over a whole input."""

    def setup(self) -> None:
        self.bn_branch: BNBranch = "clean"
        if self.attack == "pgd":
            self.bn_branch, self.ball = "adversarial", NormBall(self.epsilon, self.step_size, self.norm)
        self.stochastic = self.attack == "pgd"
        self.cost = f"{2 * self.steps * (self.attack == 'pgd') + 1}F"
        self.graphs = int(self.attack == "pgd")

    def losses(self, model: nn.Module, batch: Batch) -> Iterator[Loss]:
        labels, bn_branch = batch["labels"], self.bn_branch
        delta, log = None, dict[str, Tensor]()
        if self.attack == "pgd":
            attack, log = ce_attack(model, batch, labels, self.ball, steps=self.steps, bn_branch=bn_branch)
            delta = attack.delta
        with evaluating(model):
            ce = supervised_loss(model(batch, delta=delta, bn_branch=bn_branch).logits, labels)
        yield Loss(ce, {"ce" if delta is None else "ce_adv": ce.detach()} | log)

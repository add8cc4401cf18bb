"""Adversarial training with one step: the "+AT" rows of SCAL's Tables 4 and 5."""

from collections.abc import Iterator

from pydantic import validate_call
from torch import nn

from contraverse.attacks import Objective, attack_step, perturbation_inputs
from contraverse.functional import Scope, supervised_loss
from contraverse.methods.settings import Epsilon, OneStep, one_step_ball
from contraverse.types import Batch, Loss, Method


class AdversarialTraining(Method):
    """Cross-entropy on clean and adversarial inputs: SCAL eq. (8) without its contrastive term.

        delta = epsilon * g / ||g||_2,  g = grad of CE(x, y) at the word embeddings     eqs. (3), (6)
        L     = 1/2 (CE(x, y) + CE(x + delta, y))                                       eq. (8), alpha = 0

    Batch: ``labels``. Cost: 2F + b + 2B = 7F; the attack uses the clean pass's graph.

    Args:
        epsilon: norm of the perturbation per ``scope``, > 0.
        attack: ``"fgm"`` (L2) or ``"fgsm"`` (sign).
        scope: what one norm is taken over.
    """

    name = "at"
    summary = "cross-entropy on clean and one-step adversarial inputs"
    paper = "SCAL/USCAL"
    equation = "(2), (3), (8) with alpha = 0"
    requires = "labels"
    cost = "7F"

    @validate_call
    def __init__(self, *, epsilon: Epsilon = 0.3, attack: OneStep = "fgm", scope: Scope = "sequence") -> None:
        super().__init__()
        self.ball = one_step_ball(attack, epsilon, scope)

    def losses(self, model: nn.Module, batch: Batch) -> Iterator[Loss]:
        labels, inputs = batch["labels"], perturbation_inputs(model, batch)
        delta = self.ball.init(inputs)
        logits = model(batch, delta=delta).logits.float()
        clean = supervised_loss(logits, labels)
        attack = attack_step(delta, self.ball, inputs, loss=Objective(clean, logits), keep_graph=True)
        adversarial = supervised_loss(model(batch, delta=attack.delta).logits, labels)
        parts = {"ce": clean.detach(), "ce_adv": adversarial.detach()} | attack.log(inputs)
        yield Loss((clean + adversarial) / 2, parts)

"""Adversarial training with one attack step: the "+AT" rows of SCAL's Tables 4 and 5."""

from collections.abc import Iterator

from torch import nn

from contraverse.attacks import Objective, attack_step, perturbation_inputs
from contraverse.functional import Scope, supervised_loss
from contraverse.methods._settings import Epsilon, OneStep, one_step_ball, settings
from contraverse.types import Batch, Loss, Method


@settings
class AdversarialTraining(Method):
    """Cross-entropy on clean and one-step adversarial inputs: SCAL eq. (8) without its contrastive term.

        delta = epsilon * g / ||g||_2,  g = grad of CE(x, y) at the word embeddings     eqs. (3), (6)
        L     = 1/2 (CE(x, y) + CE(x + delta, y))                                       eq. (8), alpha = 0

    Batch: ``labels``. Cost: 2F + b + 2B = 7F; the attack uses the clean pass's graph.
    """

    name = "at"
    summary = "cross-entropy on clean and one-step adversarial inputs"
    paper = "SCAL/USCAL"
    equation = "(2), (3), (8) with alpha = 0"
    requires = "labels"
    cost = "7F"
    graphs = 2
    test_settings = {"at-fgsm": {"attack": "fgsm", "epsilon": 0.01}, "at-token": {"scope": "token"}}

    epsilon: Epsilon = 0.3
    """Norm of the perturbation per `scope`, in the units of the word embeddings or pixels."""
    attack: OneStep = "fgm"
    """Direction of the one step: `fgm` the gradient (L2), `fgsm` its sign (Linf)."""
    scope: Scope = "sequence"
    """Extent of one norm: a whole sequence or image, a token, or the batch."""

    def setup(self) -> None:
        self.ball = one_step_ball(self.attack, self.epsilon, self.scope)

    def losses(self, model: nn.Module, batch: Batch) -> Iterator[Loss]:
        labels, inputs = batch["labels"], perturbation_inputs(model, batch)
        delta = self.ball.init(inputs)
        logits = model(batch, delta=delta).logits.float()
        ce = supervised_loss(logits, labels)
        attack = attack_step(delta, self.ball, inputs, loss=Objective(ce, logits), keep_graph=True)
        ce_adv = supervised_loss(model(batch, delta=attack.delta).logits, labels)
        parts = {"ce": ce.detach(), "ce_adv": ce_adv.detach()} | attack.log(inputs)
        yield Loss((ce + ce_adv) / 2, parts)

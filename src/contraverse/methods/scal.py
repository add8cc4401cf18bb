"""SCAL: supervised contrastive adversarial learning (Miao et al., 2021)."""

from collections.abc import Iterator
from typing import Literal

from pydantic import validate_call
from torch import nn

from contraverse.attacks import Objective, attack_step, perturbation_inputs
from contraverse.functional import Scope, info_nce, scal_literal, supervised_loss
from contraverse.methods.settings import (
    PROJECTION,
    Alpha,
    Epsilon,
    OneStep,
    Projection,
    SameClassRows,
    Temperature,
    one_step_ball,
    projection_of,
    require_classes,
)
from contraverse.types import Batch, Loss, Method, TrainingInfo


class SCAL(Method):
    """The adversarial input is a second input to classify, and the clean one's positive.

        delta = epsilon * g / ||g||_2,  g = grad of CE(x, y) at the word embeddings     eq. (6)
        L_ct  = -log exp(sim(z_i, z_i^adv)/t) / sum_k exp(sim(z_i, z_k^adv)/t)          eq. (7), as InfoNCE
        L     = 1/2 (CE(x, y) + CE(x^adv, y)) + alpha * L_ct(x, x^adv)                  eq. (8)

    Batch: ``labels``. Cost: 2F + b + 2B = 7F; the attack uses the clean pass's graph.

    Departure: eq. (7) is printed with ``z_k`` in the denominator, which leaves the positive out of it;
    ``contrast="literal"`` is that, the default is InfoNCE (eq. 4). The paper does not say over what a norm
    is taken, nor the value of alpha.

    Args:
        epsilon: norm of the perturbation per ``scope``, > 0; the paper tries .1 to .5.
        alpha: weight of the contrastive loss, >= 0; the paper says below one.
        temperature: of the contrastive loss, > 0.
        attack: ``"fgm"`` (L2) or ``"fgsm"`` (sign).
        contrast: ``"infonce"`` or ``"literal"``.
        scope: what one norm is taken over.
        same_class: rows of the anchor's class are ``"negatives"`` as printed, ``"masked"`` out of the denominator, or
            ``"positives"`` too (supervised contrastive learning).
        projection: z is a ``"new"`` linear layer and tanh on h, or the encoder's own ``"pooler"``.
    """

    name = "scal"
    summary = "cross-entropy on clean and adversarial inputs, which are each other's positives"
    paper = "SCAL/USCAL"
    equation = "(5)-(8)"
    requires = "labels"
    cost = "7F"
    heads = PROJECTION

    @validate_call
    def __init__(
        self,
        *,
        epsilon: Epsilon = 0.3,
        alpha: Alpha = 0.1,
        temperature: Temperature = 0.05,
        attack: OneStep = "fgm",
        contrast: Literal["infonce", "literal"] = "infonce",
        scope: Scope = "sequence",
        same_class: SameClassRows = "negatives",
        projection: Projection = "new",
    ) -> None:
        super().__init__()
        self.same_class, self.heads = same_class, projection_of(projection)
        self.ball = one_step_ball(attack, epsilon, scope)
        self.alpha, self.temperature = alpha, temperature
        self.contrast = info_nce if contrast == "infonce" else scal_literal

    def prepare(self, training_info: TrainingInfo) -> None:
        """Check that there are classes where they are read.

        Raises:
            UserError: there are none.
        """
        require_classes(self.name, self.same_class, training_info)

    def losses(self, model: nn.Module, batch: Batch) -> Iterator[Loss]:
        labels, inputs = batch["labels"], perturbation_inputs(model, batch)
        delta = self.ball.init(inputs)
        clean = model(batch, delta=delta, want=("logits", "z"))
        logits = clean.logits.float()
        ce = supervised_loss(logits, labels)
        attack = attack_step(delta, self.ball, inputs, loss=Objective(ce, logits), keep_graph=True)
        adversarial = model(batch, delta=attack.delta, want=("logits", "z"))
        ce_adv = supervised_loss(adversarial.logits, labels)
        contrast = self.contrast(clean.z, adversarial.z, self.temperature, labels=labels, same_class=self.same_class)
        parts = {"ce": ce.detach(), "ce_adv": ce_adv.detach(), "contrast": contrast.detach()} | attack.log(inputs)
        yield Loss((ce + ce_adv) / 2 + self.alpha * contrast, parts)

"""USCAL: unsupervised contrastive adversarial learning (Miao et al., 2021)."""

from collections.abc import Iterator

from pydantic import validate_call
from torch import nn

from contraverse.attacks import Objective, attack_step, perturbation_inputs
from contraverse.functional import Scope, info_nce
from contraverse.methods.settings import (
    PROJECTION,
    Alpha,
    Epsilon,
    OneStep,
    Projection,
    Temperature,
    one_step_ball,
    projection_of,
)
from contraverse.types import Batch, Loss, Method


class USCAL(Method):
    """SimCSE, and a third view that climbs SimCSE's own loss.

        delta = epsilon * g / ||g||_2,  g = grad of InfoNCE(z1, z2) at x^emb1           eq. (9)
        L     = InfoNCE(z1, z2) + alpha * InfoNCE(z1, z^adv)                            eq. (10)

    z1 and z2 are two dropout views; z^adv is x^emb1 + delta under a third mask.

    Batch: sentences. Cost: 3F + b + 3B = 10F (SimCSE: 6F). The model must be in training mode.

    Args:
        epsilon: norm of the perturbation per ``scope``, > 0.
        alpha: weight of the adversarial term, >= 0.
        temperature: > 0.
        attack: ``"fgm"`` (L2) or ``"fgsm"`` (sign).
        scope: what one norm is taken over.
        projection: z is a ``"new"`` linear layer and tanh on h, or the encoder's own ``"pooler"``.
    """

    name = "uscal"
    summary = "InfoNCE between two dropout views, and between the first and an adversarial third"
    paper = "SCAL/USCAL"
    equation = "(9), (10)"
    modality = "text"
    requires = "inputs"
    cost = "10F"
    heads = PROJECTION

    @validate_call
    def __init__(
        self,
        *,
        epsilon: Epsilon = 0.3,
        alpha: Alpha = 0.1,
        temperature: Temperature = 0.05,
        attack: OneStep = "fgm",
        scope: Scope = "sequence",
        projection: Projection = "new",
    ) -> None:
        super().__init__()
        self.heads = projection_of(projection)
        self.ball = one_step_ball(attack, epsilon, scope)
        self.alpha, self.temperature = alpha, temperature

    def losses(self, model: nn.Module, batch: Batch) -> Iterator[Loss]:
        inputs = perturbation_inputs(model, batch)
        delta = self.ball.init(inputs)
        first = model(batch, delta=delta, want=("z",)).z.float()
        second = model(batch, want=("z",)).z
        contrast = info_nce(first, second, self.temperature)
        attack = attack_step(delta, self.ball, inputs, loss=Objective(contrast, first), keep_graph=True)
        third = model(batch, delta=attack.delta, want=("z",)).z
        contrast_adv = info_nce(first, third, self.temperature)
        parts = {"contrast": contrast.detach(), "contrast_adv": contrast_adv.detach()} | attack.log(inputs)
        yield Loss(contrast + self.alpha * contrast_adv, parts)

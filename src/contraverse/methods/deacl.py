"""DeACL: robustness by distillation, decoupled from learning features (Zhang et al., 2022)."""

from collections.abc import Iterator
from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field, validate_call
from torch import Tensor, nn

from contraverse.attacks import NormBall, Objective, perturbation_inputs, pgd
from contraverse.functional import Norm
from contraverse.methods.settings import EPSILON, STEP_SIZE, Epsilon, Steps, StepSize
from contraverse.methods.views import twice
from contraverse.models.modes import attacking
from contraverse.types import Batch, Loss, Method

Weight = Annotated[float, Field(ge=0, allow_inf_nan=False, description="weight of the adversarial term")]


class DeACL(Method):
    """A student learns what a frozen teacher says of clean inputs, and to say the same of adversarial ones.

        d = argmax -cos(s(x + d), t(x)),  ||d||_inf <= epsilon
        L = -cos(s(x), t(x)) - gamma * cos(s(x + d), s(x))

    s and t are features h. The teacher is the model as it was at the start, so that one begins from a model that
    SimCLR (``simclr``) or another method has trained. The attack is PGD from a uniform start in eval mode, its last
    iterate within [0, 1]. Clean and adversarial inputs go through the adversarial batch norm together, in one pass,
    and gradients through both sides of the second term. A dual batch norm's clean set is the teacher's.

    Batch: inputs alone. Cost: 2F for each of the attack's ``steps``, F for the teacher, and 2F + 2B for training: 17F.

    Departure: the authors train a linear classifier beside it, which is for their log alone.

    Args:
        weight: gamma, of the adversarial term, >= 0.
        epsilon: largest norm of a perturbation, > 0, in pixels of [0, 1] (of the word embeddings, for sentences).
        step_size: length of one ascent, > 0, in the same units.
        steps: gradients of the attack, >= 1.
        norm: ``"linf"`` or ``"l2"``, of a whole image (of a whole sentence).
    """

    name = "deacl"
    summary = "features of a frozen teacher, kept under attack"
    paper = "DeACL"
    equation = "section 3 of DeACL"
    requires = "inputs"
    bn_branch = "adversarial"
    needs_reference_model = True
    teacher = "copy"

    @validate_call
    def __init__(
        self,
        *,
        weight: Weight = 2.0,
        epsilon: Epsilon = EPSILON,
        step_size: StepSize = STEP_SIZE,
        steps: Steps = 5,
        norm: Norm = "linf",
    ) -> None:
        super().__init__()
        self.ball = NormBall(epsilon, step_size, norm)
        self.weight, self.steps = weight, steps

    @property
    def cost(self) -> str:  # type: ignore[override]
        """2F for each ascent, and 7F."""
        return f"{2 * self.steps + 7}F"

    def losses(self, model: nn.Module, batch: Batch) -> Iterator[Loss]:
        target, inputs = self._target(batch), perturbation_inputs(model, batch)

        def unlike(delta: Tensor) -> Objective:
            h = model(batch, delta=delta, want=("h",), bn_branch="adversarial").h.float()
            return Objective(-_cosine(h, target), h)

        with attacking(model):
            attack = pgd(unlike, self.ball, inputs, steps=self.steps, random_start=True, keep="last")
        delta = torch.cat([torch.zeros_like(attack.delta), attack.delta])
        clean, adversarial = model(twice(batch), delta=delta, want=("h",), bn_branch="adversarial").h.chunk(2)
        distilled, robust = -_cosine(clean, target).mean(), -_cosine(adversarial, clean).mean()
        parts = {"distillation": distilled.detach(), "consistency": robust.detach()} | attack.log(inputs)
        yield Loss(distilled + self.weight * robust, parts)

    @torch.no_grad()
    def _target(self, batch: Batch) -> Tensor:
        if not hasattr(self, "reference_model"):
            raise ValueError("call receive(copy of the model) before the first step (Trainer does)")
        h = self.reference_model(batch, want=("h",)).h
        assert isinstance(h, Tensor)
        return h


def _cosine(a: Tensor, b: Tensor) -> Tensor:
    return F.cosine_similarity(a.float(), b.float(), dim=1)

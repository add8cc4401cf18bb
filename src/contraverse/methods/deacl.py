"""DeACL: adversarial robustness by distillation from a self-supervised teacher (Zhang et al., 2022)."""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from contraverse.attacks import NormBall, Objective, perturbation_inputs, pgd
from contraverse.functional import Norm
from contraverse.methods._settings import EPSILON, STEP_SIZE, Epsilon, Steps, StepSize, Weight, settings
from contraverse.methods._views import twice
from contraverse.models.modes import attacking
from contraverse.types import Batch, Loss, Method


@settings
class DeACL(Method):
    """Distill a frozen teacher's features into a student, clean and under attack.

        d = argmax -cos(s(x + d), t(x)),  ||d||_inf <= epsilon
        L = -cos(s(x), t(x)) - gamma * cos(s(x + d), s(x))

    s and t are features h. The teacher is the model before training, so start from a model that SimCLR (``simclr``) or
    another method has trained. The attack is PGD from a uniform start in eval mode, its last iterate within [0, 1].
    Clean and adversarial inputs go through the adversarial batch-norm branch together, in one pass, and gradients
    through both sides of the second term. The clean branch of a dual model is the teacher's.

    Batch: inputs alone. Cost: 2F for each of the attack's ``steps``, F for the teacher, and 2F + 2B for training: 17F.

    Departure: the authors train a linear classifier beside it, which is for their log alone.
    """

    name = "deacl"
    summary = "distill a frozen teacher's features into a student, under attack"
    paper = "DeACL"
    equation = "section 3 of DeACL"
    requires = "inputs"
    teacher = "copy"
    bn_branch = "adversarial"
    needs_reference_model = True
    stochastic = True

    weight: Weight = 2.0
    """Weight gamma of the adversarial term; the value of the authors' script."""
    epsilon: Epsilon = EPSILON
    """Largest norm of a perturbation, in pixels of [0, 1] (for sentences, in units of the word embeddings)."""
    step_size: StepSize = STEP_SIZE
    """Length of one attack step, in the same units."""
    steps: Steps = 5
    """Number of attack steps."""
    norm: Norm = "linf"
    """Norm of the perturbation, over a whole image or sentence."""

    def setup(self) -> None:
        self.ball = NormBall(self.epsilon, self.step_size, self.norm)
        self.cost = f"{2 * self.steps + 7}F"
        self.graphs = 2

    def losses(self, model: nn.Module, batch: Batch) -> Iterator[Loss]:
        target, inputs = self._teacher_features(batch), perturbation_inputs(model, batch)

        def dissimilarity(delta: Tensor) -> Objective:
            h = model(batch, delta=delta, want=("h",), bn_branch="adversarial").h.float()
            return Objective(-_cosine(h, target), h)

        with attacking(model):
            attack = pgd(dissimilarity, self.ball, inputs, steps=self.steps, random_start=True, keep="last")
        delta = torch.cat([torch.zeros_like(attack.delta), attack.delta])  # (2B, ...)
        clean, adversarial = model(twice(batch), delta=delta, want=("h",), bn_branch="adversarial").h.chunk(2)  # (B, H)
        distilled, robust = -_cosine(clean, target).mean(), -_cosine(adversarial, clean).mean()
        parts = {"distillation": distilled.detach(), "consistency": robust.detach()} | attack.log(inputs)
        yield Loss(distilled + self.weight * robust, parts)

    @torch.no_grad()
    def _teacher_features(self, batch: Batch) -> Tensor:
        """Features (B, H) of the teacher for the clean inputs."""
        if not hasattr(self, "reference_model"):
            raise ValueError("call set_reference_model(copy) before the first step (Trainer does)")
        h: Tensor = self.reference_model(batch, want=("h",)).h
        return h


def _cosine(a: Tensor, b: Tensor) -> Tensor:
    """Cosine similarity of rows (B, H) -> (B,), in fp32."""
    return F.cosine_similarity(a.float(), b.float(), dim=1)

"""TRADES (Zhang et al., 2019): accuracy on clean inputs, traded for predictions that no perturbation moves."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field, validate_call
from torch import Tensor, nn

from contraverse.attacks import NormBall, Objective, perturbation_inputs, pgd
from contraverse.functional import Norm, kl, squared_distance, supervised_loss
from contraverse.methods.settings import EPSILON, STEP_SIZE, Epsilon, Steps, StepSize
from contraverse.models.modes import attacking
from contraverse.types import Batch, ForwardCall, ForwardCalls, Inputs, Loss, Method

Beta = Annotated[float, Field(ge=0, allow_inf_nan=False, description="weight of the divergence under attack")]
Sigma = Annotated[float, Field(gt=0, allow_inf_nan=False, description="standard deviation of the start")]


@dataclass(frozen=True)
class NoisyStart(NormBall):
    """A ball whose random start is normal noise of deviation ``sigma``, brought into the ball and the box.

    At the clean input itself a divergence from the clean prediction has no gradient.
    """

    sigma: float = 1e-3

    def init(self, inputs: Inputs, *, random: bool = False) -> Tensor:
        """As `NormBall.init`."""
        if not random:
            return super().init(inputs)
        noise = torch.where(inputs.mask, self.sigma * torch.randn_like(inputs.values), 0.0)
        return self.step(noise, torch.zeros_like(noise), inputs)


class TRADES(Method):
    """Right on clean inputs, and of the same mind on those beside them.

        L = CE(f(x), y) + beta max_{||x' - x|| <= epsilon} KL(f(x) || f(x'))            eq. (5) of TRADES

    with beta = 1 / lambda. The maximum is sought by PGD from ``x + sigma N(0, 1)``; the last of k iterates is trained
    on. Nothing is detached: the divergence also trains the clean prediction. Of a regression the squared distance of
    the scores stands for KL.

    Batch: ``labels``. Cost: F + k (F + b) + 2 (F + B) = 27F with the defaults: the clean prediction that the attack
    climbs away from is made once, where the authors make it at each step (39F). A clean and an adversarial pass are
    trained on, each with a batch norm of its own in a dual model (DynACL's fine-tuning); a single one sees the two
    batches one after the other, the clean one first, as in the authors' code.

    Departures: the start is cut to [0, 1]; the authors cut after the first step. In an L2 ball steps are as in Linf,
    along ``g / ||g||_2``, where the authors run SGD with a renormalised gradient.

    Args:
        beta: 1 / lambda, >= 0; ACL has 6.
        epsilon: largest norm of a perturbation, > 0. In the units of the inputs: the default is one of pixels.
        step_size: > 0.
        steps: k, >= 1.
        sigma: deviation of the start, > 0.
        norm: ``"linf"`` or ``"l2"``, over a whole input.
    """

    name = "trades"
    summary = "cross-entropy on clean inputs, and predictions that a perturbation moves little"
    paper = "TRADES; ACL"
    equation = "(5) of TRADES"
    requires = "labels"
    bn_branch = "adversarial"

    @validate_call
    def __init__(
        self,
        *,
        beta: Beta = 6.0,
        epsilon: Epsilon = EPSILON,
        step_size: StepSize = STEP_SIZE,
        steps: Steps = 10,
        sigma: Sigma = 1e-3,
        norm: Norm = "linf",
    ) -> None:
        super().__init__()
        self.ball = NoisyStart(epsilon, step_size, norm, sigma=sigma)
        self.beta, self.steps = beta, steps

    @property
    def cost(self) -> str:  # type: ignore[override]
        """F for the prediction that is attacked, 2F for each step, and 6F."""
        return f"{2 * self.steps + 7}F"

    def losses(self, model: nn.Module, batch: Batch) -> Iterator[Loss]:
        labels, inputs = batch["labels"], perturbation_inputs(model, batch)
        distance = squared_distance if labels.is_floating_point() else kl

        def apart(delta: Tensor) -> Objective:
            logits = model(batch, delta=delta, bn_branch="adversarial").logits.float()
            return Objective(distance(target, logits), logits)

        with attacking(model):
            # Under no_grad autocast would keep casts of the weights that later passes could not train through.
            target = model(batch).logits.detach()
            attack = pgd(apart, self.ball, inputs, steps=self.steps, random_start=True, keep="last")
        both = model(ForwardCalls((ForwardCall(batch), ForwardCall(batch, attack.delta, bn_branch="adversarial"))))
        clean, adversarial = (out.logits for out in both)
        ce, divergence = supervised_loss(clean, labels), distance(clean, adversarial).mean()
        parts = {"ce": ce.detach(), "kl": divergence.detach()} | attack.log(inputs)
        yield Loss(ce + self.beta * divergence, parts)

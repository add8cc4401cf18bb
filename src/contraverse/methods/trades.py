"""TRADES (Zhang et al., 2019): a trade-off between clean accuracy and robust predictions."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from contraverse.attacks import NormBall, Objective, perturbation_inputs, pgd
from contraverse.functional import Norm, kl, squared_distance, supervised_loss
from contraverse.methods._settings import EPSILON, STEP_SIZE, Epsilon, Steps, StepSize, Weight, settings
from contraverse.models.modes import attacking
from contraverse.types import Batch, ForwardCall, ForwardCalls, Inputs, Loss, Method


@dataclass(frozen=True)
class NoisyStart(NormBall):
    """Ball whose random start is normal noise of deviation ``sigma``, projected into the ball and the box.

    At the clean input itself the divergence from the clean prediction has no gradient.
    """

    sigma: float = 1e-3

    def init(self, inputs: Inputs, *, random: bool = False) -> Tensor:
        """First perturbation: zero, or if ``random`` normal noise; see `NormBall.init`."""
        if not random:
            return super().init(inputs)
        noise = torch.where(inputs.mask, self.sigma * torch.randn_like(inputs.values), 0.0)
        return self.step(noise, torch.zeros_like(noise), inputs)


@settings
class TRADES(Method):
    """Cross-entropy on clean inputs plus the KL divergence to the most different prediction within epsilon.

        L = CE(f(x), y) + beta max_{||x' - x|| <= epsilon} KL(f(x) || f(x'))            eq. (5) of TRADES

    with beta = 1 / lambda. The maximum is searched by PGD from ``x + sigma N(0, 1)``; training uses the last of k
    iterates. Nothing is detached: the divergence also trains the clean prediction. For a regression the squared
    distance of the scores replaces KL.

    Batch: ``labels``. Cost: F + k (F + b) + 2 (F + B) = 27F with the defaults: the clean prediction that the attack
    compares with is computed once, where the authors compute it at each step (39F). A clean and an adversarial pass are
    trained on, each with its own batch-norm branch in a dual model (DynACL's fine-tuning); a single one sees the two
    batches one after the other, the clean one first, as in the authors' code.

    Departures: the start is clipped to [0, 1]; the authors clip after the first step. In an L2 ball steps are as in
    Linf, along ``g / ||g||_2``, where the authors run SGD with a renormalized gradient.
    """

    name = "trades"
    summary = "cross-entropy plus KL between clean and PGD predictions"
    paper = "TRADES; ACL"
    equation = "(5) of TRADES"
    requires = "labels"
    bn_branch = "adversarial"
    stochastic = True
    test_settings = {
        "trades-l2": {"epsilon": 0.3, "step_size": 0.1, "steps": 3, "sigma": 0.02, "norm": "l2"},
    }

    beta: Weight = 6.0
    """Weight 1 / lambda of the divergence; ACL's value."""
    epsilon: Epsilon = EPSILON
    """Largest norm of a perturbation, in the units of the inputs; the default is for pixels in [0, 1]."""
    step_size: StepSize = STEP_SIZE
    """Length of one attack step."""
    steps: Steps = 10
    """Number k of attack steps."""
    sigma: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1e-3
    """Standard deviation of the noise that the attack starts from."""
    norm: Norm = "linf"
    """Norm of the perturbation, over a whole input."""

    def setup(self) -> None:
        self.ball = NoisyStart(self.epsilon, self.step_size, self.norm, sigma=self.sigma)
        self.cost = f"{2 * self.steps + 7}F"
        self.graphs = 2

    def losses(self, model: nn.Module, batch: Batch) -> Iterator[Loss]:
        labels, inputs = batch["labels"], perturbation_inputs(model, batch)
        distance = squared_distance if labels.is_floating_point() else kl

        def divergence_of(delta: Tensor) -> Objective:
            logits = model(batch, delta=delta, bn_branch="adversarial").logits.float()
            return Objective(distance(target, logits), logits)

        with attacking(model):
            # Under no_grad autocast would keep casts of the weights that later passes could not train through.
            target = model(batch).logits.detach()
            attack = pgd(divergence_of, self.ball, inputs, steps=self.steps, random_start=True, keep="last")
        outputs = model(ForwardCalls((ForwardCall(batch), ForwardCall(batch, attack.delta, bn_branch="adversarial"))))
        clean, adversarial = (out.logits for out in outputs)
        ce, divergence = supervised_loss(clean, labels), distance(clean, adversarial).mean()
        parts = {"ce": ce.detach(), "kl": divergence.detach()} | attack.log(inputs)
        yield Loss(ce + self.beta * divergence, parts)

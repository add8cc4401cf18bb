"""SMART (Jiang et al., 2020): smoothness-inducing regularization and Bregman proximal point updates."""

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Annotated, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn

from contraverse.attacks import (
    NormBall,
    Objective,
    Perturbation,
    SharedDropout,
    attack_step,
    perturbation_inputs,
)
from contraverse.functional import Norm, Scope, squared_distance, supervised_loss, symmetric_kl
from contraverse.methods._settings import Limit, Momentum, Sigma, StepSize, Weight, settings
from contraverse.types import Ball, Batch, Loss, Method

AttackSteps = Annotated[int, Field(ge=0)]
Distance = Callable[[Tensor, Tensor], Tensor]


class Virtual(NamedTuple):
    """Logits (B, C) of the clean and of the perturbed input, and the log of the attack."""

    clean: Tensor
    perturbed: Tensor
    log: dict[str, Tensor]


def prediction_distance(labels: Tensor) -> Distance:
    """Distance l_s of two predictions, (B,): symmetrized KL of class logits, squared distance of scores."""
    return squared_distance if labels.is_floating_point() else symmetric_kl


def virtual_attack(
    model: nn.Module, batch: Batch, ball: Ball, *, sigma: float, steps: int, share_dropout: bool
) -> Virtual:
    """Search the perturbation that changes the prediction most, by ``steps`` steps from noise of N(0, sigma^2).

    Without noise the distance is at its minimum and has no gradient. Costs 2 forward-units a step, and two forwards
    that can be trained on.
    """
    inputs, distance = perturbation_inputs(model, batch), prediction_distance(batch["labels"])
    masks = SharedDropout(inputs.values.device) if share_dropout else nullcontext

    def predict(delta: Tensor | None = None) -> Tensor:
        with masks():
            logits = model(batch, delta=delta).logits
        assert isinstance(logits, Tensor)
        return logits.float()

    clean = predict()
    delta = torch.where(inputs.mask, sigma * torch.randn_like(inputs.values), 0.0)
    zero_grad_rows = torch.zeros((), dtype=torch.long, device=delta.device)
    for _ in range(steps):
        delta.requires_grad_()
        perturbed = predict(delta)
        loss = Objective(distance(perturbed, clean.detach()), perturbed)
        delta, zero_rows = attack_step(delta, ball, inputs, loss=loss)
        zero_grad_rows = zero_grad_rows + zero_rows
    return Virtual(clean, predict(delta), Perturbation(delta, zero_grad_rows).log(inputs))


@settings
class SMART(Method):
    """Smoothness-inducing regularization plus Bregman proximal point updates.

        F(theta)  = L(theta) + lambda_s R_s(theta) + mu D_Breg(theta, theta~)           eqs. (1), (3)
        R_s       = 1/n sum_i max_{||x~_i - x_i|| <= epsilon} l_s(f(x~_i; theta), f(x_i; theta))      eq. (2)
        D_Breg    = 1/n sum_i l_s(f(x_i; theta), f(x_i; theta~))                        eq. (4)
        theta~   <- (1 - beta) theta + beta theta~  after each step                     eq. (5)

    l_s is ``KL(P || Q) + KL(Q || P)`` for classes and the squared distance for a regression. The maximum is searched as
    in Algorithm 1: from ``x + N(0, sigma^2)``, ``steps`` times ``x~ <- project(x~ + eta g / ||g||)``.

    Batch: ``labels``. Cost: 3F + K (F + b) + 2B, and F for the weights theta~, which are a frozen copy of the model:
    9F with the defaults, 8F without mu.

    Departures: beta is constant; the paper has .99 for the first tenth of the updates and .999 after it. theta~
    predicts without dropout. All passes of theta share their dropout masks, as f is one function; the authors' code
    draws new ones, adds the perturbation after the layer norm to embed it once more, and has no D_Breg. The paper's
    epsilon of 1e-5 (eta 1e-3, sigma 1e-5) has an effect with new masks alone, ``share_dropout=False``; with shared ones
    R_s then is rounding. The defaults are those that did best in the project's study.

    ``steps=0`` and ``mu=0`` is R3F (Aghajanyan et al., 2021) with normal noise.
    """

    name = "smart"
    summary = "smoothness regularization plus Bregman proximal point updates"
    paper = "SMART"
    equation = "(1)-(5), Algorithm 1 of SMART"
    requires = "labels"
    stochastic = True
    test_settings = {"smart-far": {"epsilon": 0.1, "step_size": 0.1, "sigma": 0.02, "steps": 2}}

    weight: Weight = 1.0
    """Weight lambda_s of the smoothness regularizer; the paper searches 1, 3, 5."""
    mu: Weight = 1.0
    """Weight of the proximal point term, the paper's value; 0 needs no copy of the model."""
    momentum: Momentum = 0.99
    """Momentum beta of the averaged weights theta~."""
    epsilon: Limit = 0.02
    """Largest norm of a perturbation per `scope`; the paper's is 1e-5. null is no limit."""
    step_size: StepSize = 0.02
    """Length eta of one attack step; the paper's is 1e-3."""
    sigma: Sigma = 0.005
    """Standard deviation of the noise that the attack starts from; the paper's is 1e-5."""
    steps: AttackSteps = 1
    """Number K of attack steps; 0 keeps the noise as it is."""
    norm: Norm = "linf"
    """Norm of perturbations and gradients."""
    scope: Scope = "sequence"
    """Extent of a gradient's norm (and of an L2 perturbation's): a whole sequence, a token, or the batch."""
    share_dropout: bool = True
    """Draw the same dropout masks in the clean and the perturbed passes."""

    def setup(self) -> None:
        self.ball = NormBall(self.epsilon, self.step_size, self.norm, self.scope, normalize_grad=True)
        self.needs_reference_model = self.mu > 0
        self.cost = f"{6 + 2 * self.steps + (self.mu > 0)}F"

    @torch.no_grad()
    def after_step(self, model: nn.Module) -> None:
        """Move theta~ towards theta, eq. (5)."""
        if self.mu > 0:
            for old, current in zip(self.reference_model.parameters(), model.parameters(), strict=True):
                old.lerp_(current, 1 - self.momentum)

    def losses(self, model: nn.Module, batch: Batch) -> Iterator[Loss]:
        labels, distance = batch["labels"], prediction_distance(batch["labels"])
        clean, perturbed, log = virtual_attack(
            model, batch, self.ball, sigma=self.sigma, steps=self.steps, share_dropout=self.share_dropout
        )
        ce, smoothness = supervised_loss(clean, labels), distance(perturbed, clean).mean()
        total = ce + self.weight * smoothness
        parts = {"ce": ce.detach(), "smoothness": smoothness.detach()} | log
        if self.mu > 0:
            bregman = distance(clean, self._averaged_logits(batch)).mean()
            total, parts = total + self.mu * bregman, parts | {"bregman": bregman.detach()}
        yield Loss(total, parts)

    @torch.no_grad()
    def _averaged_logits(self, batch: Batch) -> Tensor:
        """Logits (B, C) under the averaged weights theta~."""
        if not hasattr(self, "reference_model"):
            raise ValueError("call set_reference_model(copy) before the first step (Trainer does), or take mu=0")
        logits = self.reference_model(batch).logits
        assert isinstance(logits, Tensor)
        return logits

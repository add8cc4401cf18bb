"""SMART (Jiang et al., 2020): smoothness-inducing regularization and Bregman proximal point updates."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from contraverse.functional import supervised_loss
from contraverse.methods._settings import Momentum, Weight, settings
from contraverse.methods._virtual import VirtualAdversarial, prediction_distance
from contraverse.types import Batch, Loss


@settings
class SMART(VirtualAdversarial):
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

    def setup(self) -> None:
        super().setup()
        self.needs_reference_model = self.mu > 0
        self.cost = f"{6 + 2 * self.steps + (self.mu > 0)}F"
        self.graphs = 2

    @torch.no_grad()
    def after_step(self, model: nn.Module) -> None:
        """Move theta~ towards theta, eq. (5)."""
        if self.mu > 0:
            for old, current in zip(self.reference_model.parameters(), model.parameters(), strict=True):
                old.lerp_(current, 1 - self.momentum)

    def losses(self, model: nn.Module, batch: Batch) -> Iterator[Loss]:
        labels, distance = batch["labels"], prediction_distance(batch["labels"])
        clean, perturbed, log = self.attack(model, batch)
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
        logits: Tensor = self.reference_model(batch).logits
        return logits

"""SMART (Jiang et al., 2020): a smooth model, and small steps in what it says."""

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Annotated, NamedTuple

import torch
from pydantic import Field, validate_call
from torch import Tensor, nn

from contraverse.attacks import NormBall, Objective, Perturbation, SharedDropout, attack_step, perturbation_inputs
from contraverse.functional import Norm, Scope, squared_distance, supervised_loss, symmetric_kl
from contraverse.methods.settings import Limit, StepSize
from contraverse.types import Ball, Batch, Loss, Method

Smoothness = Annotated[float, Field(ge=0, allow_inf_nan=False, description="weight of the smoothness regulariser")]
Sigma = Annotated[float, Field(ge=0, allow_inf_nan=False, description="standard deviation of the start")]
Ascents = Annotated[int, Field(ge=0, description="ascents of one step; 0 leaves random noise")]
Mu = Annotated[float, Field(ge=0, allow_inf_nan=False, description="weight of the proximal point term")]
Momentum = Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False, description="momentum of the earlier weights")]
Distance = Callable[[Tensor, Tensor], Tensor]


class Virtual(NamedTuple):
    """A clean prediction and one that was moved away from it, logits (B, C), and what ``log`` holds of the attack."""

    clean: Tensor
    moved: Tensor
    log: dict[str, Tensor]


def distance_of(labels: Tensor) -> Distance:
    """l_s: the symmetrised KL of classes' logits, the squared distance of a regression's scores; (B,)."""
    return squared_distance if labels.is_floating_point() else symmetric_kl


def virtual_attack(
    model: nn.Module, batch: Batch, ball: Ball, *, sigma: float, steps: int, share_dropout: bool
) -> Virtual:
    """Seek the perturbation that changes the prediction most, ``steps`` ascents from noise of N(0, sigma^2).

    At no perturbation at all the distance is least and has no gradient. Costs 2 forward-units an ascent, and two
    forwards that can be trained on.
    """
    inputs, distance = perturbation_inputs(model, batch), distance_of(batch["labels"])
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
        moved = predict(delta)
        delta, lost = attack_step(delta, ball, inputs, loss=Objective(distance(moved, clean.detach()), moved))
        zero_grad_rows = zero_grad_rows + lost
    return Virtual(clean, predict(delta), Perturbation(delta, zero_grad_rows).log(inputs))


class SMART(Method):
    """What the model says may change neither much around an input, nor much from step to step.

        F(theta)  = L(theta) + lambda_s R_s(theta) + mu D_Breg(theta, theta~)           eqs. (1), (3)
        R_s       = 1/n sum_i max_{||x~_i - x_i|| <= epsilon} l_s(f(x~_i; theta), f(x_i; theta))      eq. (2)
        D_Breg    = 1/n sum_i l_s(f(x_i; theta), f(x_i; theta~))                        eq. (4)
        theta~   <- (1 - beta) theta + beta theta~  after each step                     eq. (5)

    l_s is ``KL(P || Q) + KL(Q || P)`` for classes and the squared distance for a regression. The maximum is sought as
    Algorithm 1 does: from ``x + N(0, sigma^2)``, ``steps`` times ``x~ <- project(x~ + eta g / ||g||)``.

    Batch: ``labels``. Cost: 3F + K (F + b) + 2B, and F for the weights theta~, which are a frozen copy of the model:
    9F with the defaults, 8F without mu.

    Departures: beta is constant; the paper has .99 for the first tenth of the updates and .999 after it. theta~
    predicts without dropout. All passes of theta share their dropout masks, as f is one function; the authors' code
    draws new ones, adds the perturbation after the layer norm to embed it once more, and has no D_Breg. The paper's
    epsilon of 1e-5 (eta 1e-3, sigma 1e-5) has an effect with new masks alone, ``share_dropout=False``; with shared ones
    R_s then is rounding. The defaults are those that did best in the project's study.

    ``steps=0`` and ``mu=0`` is R3F (Aghajanyan et al., 2021) with normal noise.

    Args:
        weight: lambda_s, of R_s, >= 0.
        mu: of D_Breg, >= 0; 0 needs no copy of the model.
        momentum: beta, in [0, 1).
        epsilon: largest norm of a perturbation per ``scope``, > 0; None is no limit.
        step_size: eta, length of one ascent, > 0.
        sigma: of the noise that it starts from, >= 0.
        steps: K, ascents, >= 0.
        norm: ``"linf"`` or ``"l2"``.
        scope: what the norm of a gradient is taken over, and of a perturbation.
        share_dropout: whether clean and perturbed passes draw the same dropout masks.
    """

    name = "smart"
    summary = "predictions change little around an input, and little from one step to the next"
    paper = "SMART"
    equation = "(1)-(5), Algorithm 1 of SMART"
    requires = "labels"

    @validate_call
    def __init__(
        self,
        *,
        weight: Smoothness = 1.0,
        mu: Mu = 1.0,
        momentum: Momentum = 0.99,
        epsilon: Limit = 0.02,
        step_size: StepSize = 0.02,
        sigma: Sigma = 0.005,
        steps: Ascents = 1,
        norm: Norm = "linf",
        scope: Scope = "sequence",
        share_dropout: bool = True,
    ) -> None:
        super().__init__()
        self.ball = NormBall(epsilon, step_size, norm, scope, normalize_grad=True)
        self.weight, self.mu, self.momentum = weight, mu, momentum
        self.sigma, self.steps, self.share_dropout = sigma, steps, share_dropout

    @property
    def needs_reference_model(self) -> bool:  # type: ignore[override]
        """With D_Breg alone."""
        return self.mu > 0

    @property
    def cost(self) -> str:  # type: ignore[override]
        """6F, 2F for each ascent, and F for D_Breg."""
        return f"{6 + 2 * self.steps + (self.mu > 0)}F"

    @torch.no_grad()
    def after_step(self, model: nn.Module) -> None:
        """theta~ moves towards theta, eq. (5)."""
        if self.mu > 0:
            for old, current in zip(self.reference_model.parameters(), model.parameters(), strict=True):
                old.lerp_(current, 1 - self.momentum)

    def losses(self, model: nn.Module, batch: Batch) -> Iterator[Loss]:
        labels, distance = batch["labels"], distance_of(batch["labels"])
        clean, moved, log = virtual_attack(
            model, batch, self.ball, sigma=self.sigma, steps=self.steps, share_dropout=self.share_dropout
        )
        ce, smoothness = supervised_loss(clean, labels), distance(moved, clean).mean()
        total = ce + self.weight * smoothness
        parts = {"ce": ce.detach(), "smoothness": smoothness.detach()} | log
        if self.mu > 0:
            bregman = distance(clean, self._earlier(batch)).mean()
            total, parts = total + self.mu * bregman, parts | {"bregman": bregman.detach()}
        yield Loss(total, parts)

    @torch.no_grad()
    def _earlier(self, batch: Batch) -> Tensor:
        """What theta~ predicts."""
        if not hasattr(self, "reference_model"):
            raise ValueError("call receive(copy of the model) before the first step (Trainer does), or take mu=0")
        logits = self.reference_model(batch).logits
        assert isinstance(logits, Tensor)
        return logits

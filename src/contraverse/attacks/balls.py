"""Where a perturbation may live."""

from dataclasses import dataclass

import torch
from torch import Tensor

from contraverse.functional import Norm, Scope, direction, project
from contraverse.types import Inputs


@dataclass(frozen=True)
class EmbeddingBall:
    """Perturbations of word embeddings: zero on padding, of norm at most ``epsilon`` per group of ``scope``.

    Args:
        epsilon: radius, in the units of the word embeddings; a tensor that broadcasts against (B, T, D) gives
            each row its own; None is no limit, 0 allows nothing.
        step_size: length of one step of ``ascend``, in the same norm.
        norm: ``"l2"`` or ``"linf"``.
        scope: what one norm is taken over: ``"sequence"``, ``"token"`` or ``"batch"``.
    """

    epsilon: float | Tensor | None
    step_size: float | Tensor
    norm: Norm = "l2"
    scope: Scope = "sequence"

    @property
    def rows_apart(self) -> bool:
        """False for the scope ``"batch"``: its rows share one norm."""
        return self.scope != "batch"

    def start(self, inputs: Inputs, *, random: bool = False) -> Tensor:
        """A leaf that requires grad: zero, or drawn uniformly from the ball, which must then have a limit."""
        values, mask = inputs
        delta = torch.zeros_like(values)
        if random:
            if self.epsilon is None:
                raise ValueError("a random start needs an epsilon: a ball without a limit has no uniform draw")
            if self.norm == "linf":
                delta = torch.empty_like(values).uniform_(-1, 1) * mask * self.epsilon
            else:
                # A Gaussian's direction is uniform on the sphere; U^(1/n) makes the radius uniform in the ball,
                # where n counts only the coordinates that may move.
                way = direction(torch.randn_like(values) * mask, "l2", self.scope)
                free = mask.expand_as(values)
                count = {
                    "token": free.sum(-1, keepdim=True),
                    "sequence": free.sum((-2, -1), keepdim=True),
                    "batch": free.sum().reshape(1, 1, 1),
                }[self.scope]
                radius = torch.rand(count.shape, device=values.device) ** (1 / count.clamp(min=1))
                delta = way * radius.to(values.dtype) * self.epsilon
        return self._leaf(delta, inputs)

    def ascend(self, delta: Tensor, grad: Tensor, inputs: Inputs) -> Tensor:
        """``project(delta + step_size * direction(grad))``: a fresh leaf that requires grad, zero on padding."""
        step = direction(torch.where(inputs.mask, grad.detach(), 0.0), self.norm, self.scope)
        moved = delta.detach() + self.step_size * step
        return self._leaf(project(moved, self.epsilon, self.norm, self.scope), inputs)

    @staticmethod
    def _leaf(delta: Tensor, inputs: Inputs) -> Tensor:
        return torch.where(inputs.mask, delta, 0.0).to(inputs.values.dtype).detach().requires_grad_()

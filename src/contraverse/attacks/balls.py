"""Where a perturbation may live."""

from dataclasses import dataclass

import torch
from torch import Tensor

from contraverse.functional import Norm, Scope, direction, project
from contraverse.types import Inputs


@dataclass(frozen=True)
class NormBall:
    """Perturbations of norm at most ``epsilon`` per group of ``scope``: zero on padding, pixels within [0, 1].

    Args:
        epsilon: radius, in the units of the word embeddings or of pixels; a tensor that broadcasts against them gives
            each row its own; None is no limit, 0 allows nothing.
        step_size: length of one step of ``ascend``, in the same norm.
        norm: ``"l2"`` or ``"linf"``.
        scope: what one norm is taken over: ``"sequence"``, ``"token"`` or ``"batch"``.
        gamma: size of a random start as FreeLB draws it: U(-gamma, gamma) per coordinate for Linf, the same over
            sqrt(n) for L2, where n counts the coordinates that may move; so its L2 norm is about gamma / sqrt(3).
            None draws uniformly from the ball.
        normalize_grad: climb ``grad / ||grad||`` in an Linf ball too, as FreeLB and SMART do, and not its sign.
    """

    epsilon: float | Tensor | None
    step_size: float | Tensor
    norm: Norm = "l2"
    scope: Scope = "sequence"
    gamma: float | None = None
    normalize_grad: bool = False

    @property
    def per_example(self) -> bool:
        """False for the scope ``"batch"``: its rows share one norm."""
        return self.scope != "batch"

    def init(self, inputs: Inputs, *, random: bool = False) -> Tensor:
        """A leaf that requires grad: zero, or drawn at random, and within ``epsilon``.

        Raises:
            ValueError: ``random``, where there is neither a ``gamma`` nor an ``epsilon``.
        """
        if not random:
            return self._leaf(torch.zeros_like(inputs.values), inputs)
        if self.gamma is not None:
            delta = torch.empty_like(inputs.values).uniform_(-self.gamma, self.gamma)
            if self.norm == "l2":
                delta = delta / self._free(inputs).clamp(min=1).sqrt()
            delta = torch.where(inputs.mask, delta, 0.0)
            return self._leaf(project(delta, self.epsilon, self.norm, self.scope), inputs)
        if self.epsilon is None:
            raise ValueError("a random start needs an epsilon or a gamma: a ball without a limit has no uniform draw")
        return self._leaf(self._uniform(inputs, self.epsilon), inputs)

    def _uniform(self, inputs: Inputs, epsilon: float | Tensor) -> Tensor:
        values, mask = inputs.values, inputs.mask
        if self.norm == "linf":
            return torch.empty_like(values).uniform_(-1, 1) * mask * epsilon
        # A Gaussian's direction is uniform on the sphere; U^(1/n) makes the radius uniform in the ball.
        directions = direction(torch.randn_like(values) * mask, "l2", self.scope)
        count = self._free(inputs)
        radius = torch.rand(count.shape, device=values.device) ** (1 / count.clamp(min=1))
        return directions * radius.to(values.dtype) * epsilon

    def _free(self, inputs: Inputs) -> Tensor:
        """Number of coordinates of each group that may move, shaped to broadcast against the values."""
        free = inputs.mask.expand_as(inputs.values)
        if self.scope == "token":
            return free.sum(-1, keepdim=True)
        return free.sum(tuple(range(0 if self.scope == "batch" else 1, free.dim())), keepdim=True)

    def step(self, delta: Tensor, grad: Tensor, inputs: Inputs) -> Tensor:
        """``project(delta + step_size * direction(grad))``: a fresh leaf that requires grad, zero on padding."""
        step = direction(
            torch.where(inputs.mask, grad.detach(), 0.0), self.norm, self.scope, normalize_grad=self.normalize_grad
        )
        moved = delta.detach() + self.step_size * step
        return self._leaf(project(moved, self.epsilon, self.norm, self.scope), inputs)

    @staticmethod
    def _leaf(delta: Tensor, inputs: Inputs) -> Tensor:
        values, mask, low, high = inputs
        delta = torch.where(mask, delta, 0.0).to(values.dtype)
        if low is not None or high is not None:
            # Only what leaves the box is cut: to add the values and take them off again rounds, out of the ball too.
            # What is cut adds up to 0 or 1 again to the last digit, from any value in [0, 1].
            moved = values + delta
            cut = moved.clamp(low, high)
            delta = torch.where(cut == moved, delta, cut - values)
        return delta.detach().requires_grad_()

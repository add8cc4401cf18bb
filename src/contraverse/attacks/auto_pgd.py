"""Auto-PGD: projected ascent that sets its own step size, and losses that do not saturate.

Croce & Hein, "Reliable evaluation of adversarial robustness with an ensemble of diverse parameter-free attacks" (2020).
"""

import math
from dataclasses import replace

import torch
from torch import Tensor

from contraverse.attacks.balls import NormBall
from contraverse.attacks.gradient import Perturbation
from contraverse.attacks.objective import LossOf, count_zero_grad_rows, input_gradient, losses_of
from contraverse.types import Inputs

MOMENTUM, RISES = 0.75, 0.75
"""The paper's alpha and rho: the share of the new step in a move, and of steps that have to raise the loss."""


def checkpoints(steps: int) -> list[int]:
    """Iterations after which the step size is checked: ``ceil(p_j * steps)``, below ``steps``.

    p_1 = .22, p_{j+1} = p_j + max(p_j - p_{j-1} - .03, .06), as in the paper's section 3.
    """
    marks, before, at = set[int](), 0, 22  # in hundredths: as floats, .41 * 100 may exceed 41
    while at <= 100:
        marks.add(math.ceil(at * steps / 100))
        before, at = at, at + max(at - before - 3, 6)
    return sorted(mark for mark in marks if mark < steps)


def apgd(
    loss_of: LossOf,
    ball: NormBall,
    inputs: Inputs,
    *,
    steps: int,
    restarts: int = 1,
    random_start: bool = False,
) -> Perturbation:
    """Auto-PGD (Algorithm 1): momentum, and steps that halve and go back to the best point where progress ends.

    From x_0, with P the projection onto the ball and g the ball's direction of the gradient::

        z       = P(x_k + eta g(x_k))
        x_{k+1} = P(x_k + alpha (z - x_k) + (1 - alpha) (x_k - x_{k-1})),   x_1 = P(x_0 + eta g(x_0))

    At each of `checkpoints` a row's eta is halved and its x_{k+1} set to the best point so far if fewer than rho
    of the window's steps raised its loss, or if neither eta nor the best loss changed since the checkpoint before.
    eta begins as ``ball.step_size``; the paper's choice is 2 epsilon. Every row goes its own way: nothing depends
    on the rows beside it. The loss of a row that was set back counts as its best one in the next window.

    The perturbation kept for each row is the worst one seen, over all iterates and restarts. The first restart
    begins at zero unless ``random_start`` (the paper's always begin at random), later ones at random. Costs
    ``restarts * (2 * steps + 1)`` forward-units, as `contraverse.attacks.pgd` does.

    Args:
        loss_of: one loss per row (B,).
        ball: a limit for each row: no scope ``"batch"``.
        inputs: values to perturb.
        steps: gradients per restart, >= 1.
        restarts: attempts, >= 1.
        random_start: whether the first one begins at random too.

    Raises:
        ValueError: ``steps`` or ``restarts`` below 1, or a ball that rows share.
    """
    if steps < 1 or restarts < 1:
        raise ValueError(f"steps and restarts must be at least 1, not {steps} and {restarts}")
    if not ball.per_example:
        raise ValueError("APGD sets a step size for each row, and the rows of this ball share one norm")
    climber = _Climber(loss_of, ball, inputs)
    delta, worst = climber.climb(steps, random_start)
    for _ in range(restarts - 1):
        other, losses = climber.climb(steps, True)
        delta, worst = _where(losses > worst, (other, losses), (delta, worst))
    return Perturbation(delta, climber.zero_grad_rows)


class _Climber:
    def __init__(self, loss_of: LossOf, ball: NormBall, inputs: Inputs) -> None:
        self.loss_of, self.ball, self.inputs = loss_of, ball, inputs
        self.zero_grad_rows = torch.zeros((), dtype=torch.long, device=inputs.values.device)

    def climb(self, steps: int, random: bool) -> tuple[Tensor, Tensor]:
        """The worst perturbation (B, T, D) of one restart and its loss (B,)."""
        x = self.ball.init(self.inputs, random=random)
        loss, grad = self._look(x)
        before = x
        best: tuple[Tensor, ...] = (x.detach(), loss, grad)
        each = (len(x), *[1] * (x.dim() - 1))
        eta = torch.as_tensor(self.ball.step_size, device=x.device).expand(each)
        marks, last_mark = checkpoints(steps), 0
        rises, halved, best_then = torch.zeros_like(loss), torch.zeros_like(loss, dtype=torch.bool), loss
        for k in range(steps):
            moved = self._move(x, before, grad, eta, momentum=k > 0)
            new: tuple[Tensor, ...] = (moved, *self._look(moved, gradient=k < steps - 1))
            best = _where(new[1] > best[1], new, best)
            if k == 0:
                best_then = best[1]
            if k in marks:
                halved = (rises < RISES * (k - last_mark)) | (~halved & (best[1] == best_then))
                eta = torch.where(halved.reshape(each), eta / 2, eta)
                new = _where(halved, best, new)
                last_mark, rises, best_then = k, torch.zeros_like(loss), best[1]
            rises += new[1] > loss
            before, (x, loss, grad) = x, new
        return best[0], best[1]

    def _move(self, x: Tensor, before: Tensor, grad: Tensor, eta: Tensor, momentum: bool) -> Tensor:
        z = replace(self.ball, step_size=eta).step(x, grad, self.inputs)
        if not momentum:
            return z
        with torch.no_grad():
            point = x + MOMENTUM * (z - x) + (1 - MOMENTUM) * (x - before)
        # Along no gradient a ball only projects.
        return self.ball.step(point, torch.zeros_like(point), self.inputs)

    def _look(self, x: Tensor, gradient: bool = True) -> tuple[Tensor, Tensor]:
        """Losses (B,) at ``x`` and, on request, the gradient; zeros where it is not needed."""
        if not gradient:
            with torch.no_grad():
                return _scored(losses_of(self.loss_of(x))), torch.zeros_like(x)
        objective = self.loss_of(x)
        grad = input_gradient(objective, x)
        self.zero_grad_rows += count_zero_grad_rows(grad, self.inputs)
        return _scored(losses_of(objective)), grad


def _scored(losses: Tensor) -> Tensor:
    # A loss that overflowed is a success of the attack, not a reason to forget it.
    return losses.detach().nan_to_num(nan=math.inf, posinf=math.inf, neginf=-math.inf)


def _where(better: Tensor, new: tuple[Tensor, ...], old: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Each row's part of ``new`` where it is ``better`` (B,), of ``old`` elsewhere; detached."""
    return tuple(
        torch.where(better.reshape(-1, *[1] * (a.dim() - 1)), a, b).detach() for a, b in zip(new, old, strict=True)
    )


def margin(logits: Tensor, labels: Tensor) -> Tensor:
    """``max_{i != y} z_i - z_y`` of each row (B,), from logits (B, C): positive where the row is wrong."""
    right = logits.gather(1, labels[:, None]).squeeze(1)
    others = logits.scatter(1, labels[:, None], -math.inf)
    return others.amax(1) - right


def dlr(logits: Tensor, labels: Tensor) -> Tensor:
    """Difference of logits ratio (eq. 6): ``(max_{i != y} z_i - z_y) / (z_(1) - z_(3))``, z_(j) the j-th largest logit.

    Its gradient does not vanish where the softmax is saturated, and it does not depend on the logits' scale or
    shift. It is flat only where the label comes third: on a row that is wrong already. Needs three classes or more.
    Shapes as in `margin`.
    """
    ordered = logits.topk(3, dim=1).values
    return margin(logits, labels) / (ordered[:, 0] - ordered[:, 2]).clamp(min=1e-12)

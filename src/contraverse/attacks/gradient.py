"""Gradient attacks on any ball: one step (FGM, FGSM) and many (PGD).

The inner gradient is taken with `torch.autograd.grad` with respect to the perturbation alone
(`contraverse.attacks.objective.input_gradient`): no parameter gradient is computed or left behind, and under DDP
nothing is reduced.
"""

from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from contraverse.attacks.objective import LossOf, Objective, count_zero_grad_rows, input_gradient, losses_of
from contraverse.functional import norm
from contraverse.types import Ball, Batch, Inputs


class Perturbation(NamedTuple):
    """Result of an attack.

    ``delta`` (B, T, D), detached. ``zero_grad_rows``: how many rows had no gradient, summed over steps: zero, not
    finite, or lost to underflow (`contraverse.attacks.objective.count_zero_grad_rows`).
    """

    delta: Tensor
    zero_grad_rows: Tensor

    def log(self, inputs: Inputs) -> dict[str, Tensor]:
        """For a method's log: ``zero_grad_rows``, and ``rel_perturbation_norm``, the mean over rows of ||delta||_2 /
        ||E||_2.

        E are the word embeddings of the row's real tokens: the same epsilon is another relative size in a model
        that embeds in 128 dimensions (ALBERT) than in one that embeds in 768. Or its pixels; a black image, to which
        no perturbation is small, does not count.
        """
        size = norm(inputs.values * inputs.mask)
        share = torch.where(size > 0, norm(self.delta) / size, 0)
        return {
            "zero_grad_rows": self.zero_grad_rows,
            "rel_perturbation_norm": share.sum() / (size > 0).sum().clamp(min=1),
        }


def perturbation_inputs(model: nn.Module, batch: Batch) -> Inputs:
    """Inputs that a perturbation is added to, with their mask: one embedding lookup, no gradient."""
    with torch.no_grad():
        inputs = model(batch, want=("inputs",)).inputs
    assert isinstance(inputs, Inputs)
    return inputs


def attack_step(
    delta: Tensor,
    ball: Ball,
    inputs: Inputs,
    *,
    loss: Tensor | Objective | None = None,
    grad: Tensor | None = None,
    keep_graph: bool = False,
) -> Perturbation:
    """Take one ascent step from ``delta`` and project it back into ``ball``.

    The direction is the gradient of ``loss``, which was computed with ``delta``, or ``grad`` where it is known already,
    as FreeLB's training leaves it behind. A row whose gradient is zero or not finite keeps its ``delta`` and is
    counted.

    Args:
        keep_graph: keep the graph of ``loss``, so that it can still be trained on. SCAL's clean pass serves the attack
            and the loss; the attack then costs one input gradient (1 forward-unit).

    Raises:
        ValueError: neither or both of ``loss`` and ``grad``.
    """
    if (loss is None) == (grad is None):
        raise ValueError("attack_step takes either a loss or a grad")
    if grad is None:
        assert loss is not None
        grad = input_gradient(loss, delta, keep_graph=keep_graph)
    return Perturbation(ball.step(delta, grad, inputs).detach(), count_zero_grad_rows(grad, inputs))


def fgm(loss_of: LossOf, ball: Ball, inputs: Inputs) -> Perturbation:
    """Take one step from zero: FGM (SCAL eq. 3) in an L2 ball, FGSM (eq. 2) in an Linf ball.

    One forward and one input gradient: 2 forward-units. A row whose gradient is zero or not finite gets
    ``delta = 0`` and is counted.
    """
    delta = ball.init(inputs)
    return attack_step(delta, ball, inputs, loss=loss_of(delta))


def pgd(
    loss_of: LossOf,
    ball: Ball,
    inputs: Inputs,
    *,
    steps: int,
    restarts: int = 1,
    random_start: bool = False,
    keep: Literal["worst", "last"] = "worst",
) -> Perturbation:
    """Projected gradient ascent: ``steps`` gradients and as many projected steps.

    Args:
        loss_of: the loss at a perturbation, one for each row or a scalar.
        steps: gradients of each restart, at least 1.
        restarts: how many starts, at least 1. The first is zero unless ``random_start``; later ones are random.
        keep: ``"last"`` gives the last iterate without scoring it, as methods train on: ``2 * steps`` forward-units.
            ``"worst"`` scores the end too and gives for each row the iterate of largest loss over all restarts (for the
            batch, where ``loss_of`` gives a scalar or the rows share one ball): ``restarts * (2 * steps + 1)``.

    ``zero_grad_rows`` is summed over the steps.

    Raises:
        ValueError: ``steps`` or ``restarts`` below 1, or several restarts of which the last iterate is kept.
    """
    if steps < 1 or restarts < 1:
        raise ValueError(f"steps and restarts must be at least 1, not {steps} and {restarts}")
    if keep == "last":
        if restarts > 1:
            raise ValueError("several restarts need keep='worst'")
        return _last_iterate(loss_of, ball, inputs, steps, random_start)
    worst: Tensor | None = None
    kept = torch.zeros_like(inputs.values)
    lost = torch.zeros((), dtype=torch.long, device=inputs.values.device)

    def record(delta: Tensor, losses: Tensor) -> None:
        nonlocal worst, kept
        losses = losses.detach() if ball.per_example else losses.detach().sum()
        if worst is None:
            worst, kept = losses, delta.detach()
            return
        # A loss that overflowed is a success of the attack, not a reason to forget it.
        better = (losses > worst) | (losses.isnan() & ~worst.isnan())
        worst = torch.where(better, losses, worst)
        kept = torch.where(better.reshape(-1, *[1] * (delta.dim() - 1)), delta.detach(), kept)

    for restart in range(restarts):
        delta = ball.init(inputs, random=random_start or restart > 0)
        for _ in range(steps):
            objective = loss_of(delta)
            record(delta, losses_of(objective))
            grad = input_gradient(objective, delta)
            lost += count_zero_grad_rows(grad, inputs)
            delta = ball.step(delta, grad, inputs)
        with torch.no_grad():
            record(delta, losses_of(loss_of(delta)))
    return Perturbation(kept, lost)


def _last_iterate(loss_of: LossOf, ball: Ball, inputs: Inputs, steps: int, random_start: bool) -> Perturbation:
    delta = ball.init(inputs, random=random_start)
    lost = torch.zeros((), dtype=torch.long, device=inputs.values.device)
    for _ in range(steps):
        grad = input_gradient(loss_of(delta), delta)
        lost += count_zero_grad_rows(grad, inputs)
        delta = ball.step(delta, grad, inputs)
    return Perturbation(delta.detach(), lost)

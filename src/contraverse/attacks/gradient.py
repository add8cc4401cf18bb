"""Gradient attacks on any ball: one step (FGM, FGSM) and many (PGD).

The inner gradient is taken with `torch.autograd.grad` with respect to the perturbation alone
(`contraverse.attacks.objective.input_gradient`): no parameter gradient is computed or left behind, and under DDP
nothing is reduced.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from contraverse.attacks.objective import LossOf, Objective, dead_rows, input_gradient, losses_of
from contraverse.functional import norm
from contraverse.types import Ball, Batch, Inputs


class Attack(NamedTuple):
    """What was found.

    ``delta`` (B, T, D), detached. ``dead``: how many rows had no gradient, summed over steps: zero, not finite, or lost
    to underflow (`contraverse.attacks.objective.dead_rows`).
    """

    delta: Tensor
    dead: Tensor

    def log(self, inputs: Inputs) -> dict[str, Tensor]:
        """For a method's log: ``dead``, and ``relative``, the mean over rows of ||delta||_2 / ||E||_2.

        E are the word embeddings of the row's real tokens: the same epsilon is another relative size in a model
        that embeds in 128 dimensions (ALBERT) than in one that embeds in 768. Or its pixels; a black image, to which
        no perturbation is small, does not count.
        """
        size = norm(inputs.values * inputs.mask)
        share = torch.where(size > 0, norm(self.delta) / size, 0)
        return {"dead": self.dead, "relative": share.sum() / (size > 0).sum().clamp(min=1)}


class AttackInfo(NamedTuple):
    """A row of the table of attacks."""

    name: str
    summary: str
    norm: str
    source: str


ATTACKS = {
    info.name: info
    for info in (
        AttackInfo("fgm", "one step along the gradient, scaled to L2 norm epsilon", "l2", "SCAL eq. (3)"),
        AttackInfo("fgsm", "one step along the gradient's sign, epsilon per coordinate", "linf", "SCAL eq. (2)"),
        AttackInfo("pgd", "k projected steps, random start and restarts on request", "l2, linf", "Madry et al. 2018"),
        AttackInfo("apgd", "PGD with steps that halve, on cross-entropy, then DLR", "l2, linf", "Croce & Hein 2020"),
    )
}


def perturbable(model: nn.Module, batch: Batch) -> Inputs:
    """What of ``batch`` a perturbation is added to, and where: one embedding lookup, no gradient."""
    with torch.no_grad():
        inputs = model(batch, want=("inputs",)).inputs
    assert isinstance(inputs, Inputs)
    return inputs


def climb(
    objective: Tensor | Objective, delta: Tensor, ball: Ball, inputs: Inputs, *, keep_graph: bool = False
) -> Attack:
    """One ascent from ``delta``, given the loss that was computed with it, and the outputs that the loss reads.

    With ``keep_graph`` the loss can still be trained on: SCAL's clean pass serves the attack and the loss,
    so that the attack costs one input gradient (1 forward-unit). A row whose gradient is zero or not finite
    keeps its ``delta`` and is counted.
    """
    return follow(input_gradient(objective, delta, keep_graph=keep_graph), delta, ball, inputs)


def follow(grad: Tensor, delta: Tensor, ball: Ball, inputs: Inputs) -> Attack:
    """One ascent from ``delta`` along a gradient that is there already, as FreeLB's training leaves one behind."""
    return Attack(ball.ascend(delta, grad, inputs).detach(), dead_rows(grad, inputs))


def one_step(loss_of: LossOf, ball: Ball, inputs: Inputs) -> Attack:
    """One step from zero: FGM (SCAL eq. 3) in an L2 ball, FGSM (eq. 2) in an Linf ball.

    One forward and one input gradient: 2 forward-units. A row whose gradient is zero or not finite gets
    ``delta = 0`` and is counted.
    """
    delta = ball.start(inputs)
    return climb(loss_of(delta), delta, ball, inputs)


def ascend(loss_of: LossOf, ball: Ball, inputs: Inputs, *, steps: int, random_start: bool = False) -> Attack:
    """Projected gradient ascent as methods train on it: ``steps`` gradients, and the last iterate, which is not scored.

    Starts at zero unless ``random_start``. ``2 * steps`` forward-units. ``dead`` is summed over the steps.

    Raises:
        ValueError: ``steps`` below 1.
    """
    if steps < 1:
        raise ValueError(f"steps must be at least 1, not {steps}")
    delta = ball.start(inputs, random=random_start)
    lost = torch.zeros((), dtype=torch.long, device=inputs.values.device)
    for _ in range(steps):
        attack = climb(loss_of(delta), delta, ball, inputs)
        lost += attack.dead
        delta = attack.delta.requires_grad_()
    return Attack(delta.detach(), lost)


def pgd(
    loss_of: LossOf,
    ball: Ball,
    inputs: Inputs,
    *,
    steps: int,
    restarts: int = 1,
    random_start: bool = False,
) -> Attack:
    """Projected gradient ascent: ``steps`` gradients, ``steps`` projected steps, then one forward to score the end.

    Where ``loss_of`` gives one loss per row, the perturbation kept for each row is the worst one seen, over
    all iterates and restarts; where it gives a scalar, or the rows share one ball, the worst for the batch.
    The first restart begins at zero unless ``random_start``; later ones always begin at random. Costs
    ``restarts * (2 * steps + 1)`` forward-units.

    Raises:
        ValueError: ``steps`` or ``restarts`` below 1.
    """
    if steps < 1 or restarts < 1:
        raise ValueError(f"steps and restarts must be at least 1, not {steps} and {restarts}")
    worst: Tensor | None = None
    kept = torch.zeros_like(inputs.values)
    lost = torch.zeros((), dtype=torch.long, device=inputs.values.device)

    def keep(delta: Tensor, losses: Tensor) -> None:
        nonlocal worst, kept
        losses = losses.detach() if ball.rows_apart else losses.detach().sum()
        if worst is None:
            worst, kept = losses, delta.detach()
            return
        # A loss that overflowed is a success of the attack, not a reason to forget it.
        better = (losses > worst) | (losses.isnan() & ~worst.isnan())
        worst = torch.where(better, losses, worst)
        kept = torch.where(better.reshape(-1, *[1] * (delta.dim() - 1)), delta.detach(), kept)

    for restart in range(restarts):
        delta = ball.start(inputs, random=random_start or restart > 0)
        for _ in range(steps):
            objective = loss_of(delta)
            keep(delta, losses_of(objective))
            grad = input_gradient(objective, delta)
            lost += dead_rows(grad, inputs)
            delta = ball.ascend(delta, grad, inputs)
        with torch.no_grad():
            keep(delta, losses_of(loss_of(delta)))
    return Attack(kept, lost)

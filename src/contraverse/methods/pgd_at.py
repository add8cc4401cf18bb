"""Adversarial training by PGD (Madry et al., 2018): cross-entropy on the worst inputs that k steps find."""

from collections.abc import Iterator
from contextlib import nullcontext
from typing import Annotated, Literal

from pydantic import Field, validate_call
from torch import Tensor, nn

from contraverse.attacks import NormBall, Objective, Perturbation, perturbation_inputs, pgd
from contraverse.functional import Norm, supervised_loss
from contraverse.methods.settings import EPSILON, STEP_SIZE, Epsilon, Steps, StepSize
from contraverse.models.modes import attacking
from contraverse.types import Batch, BNBranch, Loss, Method

AttackMode = Annotated[Literal["eval", "train"], Field(description="the mode that the model is attacked in")]


def ce_attack(
    model: nn.Module,
    batch: Batch,
    labels: Tensor,
    ball: NormBall,
    *,
    steps: int,
    bn_branch: BNBranch = "adversarial",
    mode: AttackMode = "eval",
) -> tuple[Perturbation, dict[str, Tensor]]:
    """PGD on the cross-entropy with ``labels`` (B,) from a uniform random start: the last iterate, and what the log
    holds of it.

    In eval mode batch norm uses its running statistics and keeps them, and dropout is off. 2 forward-units a step.
    """
    inputs = perturbation_inputs(model, batch)

    def loss_of(delta: Tensor) -> Objective:
        logits = model(batch, delta=delta, bn_branch=bn_branch).logits.float()
        # Through a batch norm in training mode each row's loss has a gradient at every row.
        return Objective(supervised_loss(logits, labels, reduction="none"), logits, per_example=mode == "eval")

    with attacking(model) if mode == "eval" else nullcontext():
        attack = pgd(loss_of, ball, inputs, steps=steps, random_start=True, keep="last")
    return attack, attack.log(inputs)


class PGDAdversarialTraining(Method):
    """The saddle point: weights that do best on the worst inputs within epsilon.

        min_theta E [ l(theta, x + delta) ],  delta = argmax_{||d|| <= epsilon} l(theta, x + d)     eqs. (1), (2)

    l is the cross-entropy. The maximum is sought by PGD from a start uniform in the ball,
    ``delta <- project(delta + eta sign(g))``, k times, and x + delta stays within [0, 1]; the last iterate is trained
    on, alone. In an L2 ball the step is ``eta g / ||g||_2``.

    Batch: ``labels``. Cost: k (F + b) + F + B = 23F with the defaults. A dual model is attacked and trained through
    its adversarial batch norms.

    Departure: the model is attacked in eval mode. Adv-SS, after which ACL fine-tunes in this way, attacks it in
    training mode (``attack_mode="train"``): each of the k passes then moves the running statistics of batch norm.

    Args:
        epsilon: largest norm of a perturbation, > 0. In the units of the inputs: the default is one of pixels.
        step_size: eta, > 0.
        steps: k, >= 1.
        norm: ``"linf"`` or ``"l2"``, over a whole input.
        attack_mode: ``"eval"`` or ``"train"``.
    """

    name = "pgd-at"
    summary = "cross-entropy on the inputs that k steps of PGD find, alone"
    paper = "Madry et al. 2018; ACL"
    equation = "(1), (2) of ACL"
    requires = "labels"
    bn_branch = "adversarial"

    @validate_call
    def __init__(
        self,
        *,
        epsilon: Epsilon = EPSILON,
        step_size: StepSize = STEP_SIZE,
        steps: Steps = 10,
        norm: Norm = "linf",
        attack_mode: AttackMode = "eval",
    ) -> None:
        super().__init__()
        self.ball = NormBall(epsilon, step_size, norm)
        self.steps, self.attack_mode = steps, attack_mode

    @property
    def cost(self) -> str:  # type: ignore[override]
        """2F for each step, and 3F."""
        return f"{2 * self.steps + 3}F"

    def losses(self, model: nn.Module, batch: Batch) -> Iterator[Loss]:
        labels = batch["labels"]
        attack, log = ce_attack(model, batch, labels, self.ball, steps=self.steps, mode=self.attack_mode)
        ce = supervised_loss(model(batch, delta=attack.delta, bn_branch="adversarial").logits, labels)
        yield Loss(ce, {"ce_adv": ce.detach()} | log)

"""Adversarial training by PGD (Madry et al., 2018)."""

from collections.abc import Iterator
from contextlib import nullcontext
from typing import Literal

from torch import Tensor, nn

from contraverse.attacks import NormBall, Objective, Perturbation, perturbation_inputs, pgd
from contraverse.functional import Norm, supervised_loss
from contraverse.methods._settings import EPSILON, STEP_SIZE, Epsilon, Steps, StepSize, settings
from contraverse.models.modes import attacking
from contraverse.types import Batch, BNBranch, Loss, Method

AttackMode = Literal["eval", "train"]


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
    """Run PGD on the cross-entropy with ``labels`` (B,) from a uniform random start.

    In eval mode batch norm uses its running statistics and keeps them, and dropout is off. 2 forward-units a step.

    Returns:
        The last iterate, and its entries for the log.
    """
    inputs = perturbation_inputs(model, batch)

    def loss_of(delta: Tensor) -> Objective:
        logits = model(batch, delta=delta, bn_branch=bn_branch).logits.float()
        # Through a batch norm in training mode each row's loss has a gradient at every row.
        return Objective(supervised_loss(logits, labels, reduction="none"), logits, per_example=mode == "eval")

    with attacking(model) if mode == "eval" else nullcontext():
        attack = pgd(loss_of, ball, inputs, steps=steps, random_start=True, keep="last")
    return attack, attack.log(inputs)


@settings
class PGDAdversarialTraining(Method):
    """Cross-entropy on the worst inputs within epsilon that k steps of PGD find, and on no others.

        min_theta E [ l(theta, x + delta) ],  delta = argmax_{||d|| <= epsilon} l(theta, x + d)     eqs. (1), (2)

    l is the cross-entropy. The maximum is searched by PGD from a start uniform in the ball,
    ``delta <- project(delta + eta sign(g))``, k times, and x + delta stays within [0, 1]; training uses the last
    iterate alone. In an L2 ball the step is ``eta g / ||g||_2``.

    Batch: ``labels``. Cost: k (F + b) + F + B = 23F with the defaults. A dual model is attacked and trained through
    its adversarial batch-norm branch.

    Departure: the model is attacked in eval mode. Adv-SS, after which ACL fine-tunes in this way, attacks it in
    training mode (``attack_mode="train"``): each of the k passes then moves the running statistics of batch norm.
    """

    name = "pgd-at"
    summary = "cross-entropy on PGD inputs alone: Madry's adversarial training"
    paper = "Madry et al. 2018; ACL"
    equation = "(1), (2) of ACL"
    requires = "labels"
    bn_branch = "adversarial"
    stochastic = True
    test_settings = {"pgd-at-l2": {"epsilon": 0.3, "step_size": 0.1, "steps": 3, "norm": "l2"}}

    epsilon: Epsilon = EPSILON
    """Largest norm of a perturbation, in the units of the inputs; the default is for pixels in [0, 1]."""
    step_size: StepSize = STEP_SIZE
    """Length eta of one attack step."""
    steps: Steps = 10
    """Number k of attack steps."""
    norm: Norm = "linf"
    """Norm of the perturbation, over a whole input."""
    attack_mode: AttackMode = "eval"
    """Mode of the model during the attack."""

    def setup(self) -> None:
        self.ball = NormBall(self.epsilon, self.step_size, self.norm)
        self.cost = f"{2 * self.steps + 3}F"

    def losses(self, model: nn.Module, batch: Batch) -> Iterator[Loss]:
        labels = batch["labels"]
        attack, log = ce_attack(model, batch, labels, self.ball, steps=self.steps, mode=self.attack_mode)
        ce = supervised_loss(model(batch, delta=attack.delta, bn_branch="adversarial").logits, labels)
        yield Loss(ce, {"ce_adv": ce.detach()} | log)

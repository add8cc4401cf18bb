"""Attacks: where a perturbation may live (balls), and how the worst one is sought."""

from contraverse.attacks.apgd import apgd, dlr, margin
from contraverse.attacks.balls import NormBall
from contraverse.attacks.dropout import SharedDropout
from contraverse.attacks.gradient import (
    ATTACKS,
    Attack,
    AttackInfo,
    ascend,
    climb,
    follow,
    one_step,
    perturbable,
    pgd,
)
from contraverse.attacks.objective import LossOf, Objective, dead_rows, input_gradient, losses_of

__all__ = [
    "ATTACKS",
    "Attack",
    "AttackInfo",
    "LossOf",
    "NormBall",
    "Objective",
    "SharedDropout",
    "apgd",
    "ascend",
    "climb",
    "dead_rows",
    "dlr",
    "follow",
    "input_gradient",
    "losses_of",
    "margin",
    "one_step",
    "perturbable",
    "pgd",
]

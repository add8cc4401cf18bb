"""Attacks: where a perturbation may live (balls), and how the worst one is sought."""

from contraverse.attacks.apgd import apgd, dlr, margin
from contraverse.attacks.balls import NormBall
from contraverse.attacks.dropout import SharedDropout
from contraverse.attacks.gradient import (
    ATTACKS,
    Attack,
    AttackInfo,
    LossOf,
    ascend,
    climb,
    follow,
    one_step,
    perturbable,
    pgd,
)

__all__ = [
    "ATTACKS",
    "Attack",
    "AttackInfo",
    "LossOf",
    "NormBall",
    "SharedDropout",
    "apgd",
    "ascend",
    "climb",
    "dlr",
    "follow",
    "margin",
    "one_step",
    "perturbable",
    "pgd",
]

"""Attacks: where a perturbation may live (balls), and how the worst one is sought."""

from contraverse.attacks.apgd import apgd, dlr, margin
from contraverse.attacks.balls import NormBall
from contraverse.attacks.dropout import SharedDropout
from contraverse.attacks.gradient import (
    ATTACKS,
    AttackInfo,
    Perturbation,
    attack_step,
    fgm,
    perturbation_inputs,
    pgd,
)
from contraverse.attacks.objective import LossOf, Objective, count_zero_grad_rows, input_gradient, losses_of

__all__ = [
    "ATTACKS",
    "AttackInfo",
    "LossOf",
    "NormBall",
    "Objective",
    "Perturbation",
    "SharedDropout",
    "apgd",
    "attack_step",
    "count_zero_grad_rows",
    "dlr",
    "fgm",
    "input_gradient",
    "losses_of",
    "margin",
    "perturbation_inputs",
    "pgd",
]

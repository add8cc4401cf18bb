"""Attacks: where a perturbation may live (balls), how the worst one is sought, and the table of all of them.

The names below load torch when they are used; `contraverse.attacks.table` does not.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from contraverse.attacks.table import ATTACKS, AttackConfig, AttackSettings, AttackSpec, attack_label, attacks_of

if TYPE_CHECKING:
    from contraverse.attacks.auto_pgd import apgd, dlr, margin
    from contraverse.attacks.balls import NormBall
    from contraverse.attacks.dropout import SharedDropout
    from contraverse.attacks.gradient import Perturbation, attack_step, fgm, perturbation_inputs, pgd
    from contraverse.attacks.objective import LossOf, Objective, count_zero_grad_rows, input_gradient, losses_of

_MODULES = {
    "auto_pgd": ("apgd", "dlr", "margin"),
    "balls": ("NormBall",),
    "dropout": ("SharedDropout",),
    "gradient": ("Perturbation", "attack_step", "fgm", "perturbation_inputs", "pgd"),
    "objective": ("LossOf", "Objective", "count_zero_grad_rows", "input_gradient", "losses_of"),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}

__all__ = [
    "ATTACKS",
    "AttackConfig",
    "AttackSettings",
    "AttackSpec",
    "LossOf",
    "NormBall",
    "Objective",
    "Perturbation",
    "SharedDropout",
    "apgd",
    "attack_label",
    "attack_step",
    "attacks_of",
    "count_zero_grad_rows",
    "dlr",
    "fgm",
    "input_gradient",
    "losses_of",
    "margin",
    "perturbation_inputs",
    "pgd",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)

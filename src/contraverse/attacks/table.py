"""The table of attacks: command line, configuration, evaluation, report and documentation read it.

A new attack is one file with a function of `contraverse.attacks.pgd`'s signature, and one row here. Imports without
torch, so that ``--help`` and a wrong setting answer at once.
"""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Literal

from contraverse.errors import unknown


def _cross_entropy(classes: int) -> tuple[str, ...]:
    return ("ce",)


def _without_saturation(classes: int) -> tuple[str, ...]:
    """Losses of APGD. Of two classes cross-entropy is ``log(1 + exp(margin))``, and the margin does not saturate."""
    return ("margin",) if classes == 2 else ("ce", "dlr")


@dataclass(frozen=True)
class AttackSpec:
    """A row of the table.

    Attributes:
        name: on the command line, in configurations and in JSON.
        label: in reports.
        summary: one line.
        paper: paper, or equation of a method's paper.
        norms: norms of the ball that the attack searches; the first is the usual one.
        measured_by: function that measures accuracy under the attack; None: it is a part of training methods.
        function: module and name in `contraverse.attacks`, for `load`; None: another package's.
        losses: names of the losses that are maximized in turn, from the number of classes.
        first_step: length of the (first) step from the radius and the number of steps, unless it is set.
    """

    name: str
    label: str
    summary: str
    paper: str
    norms: tuple[str, ...] = ("l2", "linf")
    measured_by: Literal["robust_accuracy", "auto_attack", "unforeseen_accuracy"] | None = "robust_accuracy"
    function: str | None = None
    losses: Callable[[int], tuple[str, ...]] = _cross_entropy
    first_step: Callable[[float, int], float] = lambda epsilon, steps: epsilon

    def load(self) -> Callable[..., Any]:
        """The attack itself: a function, or the class of a distortion. Loads torch."""
        assert self.function is not None, f"{self.name} is not in contraverse.attacks"
        module, _, name = self.function.partition(":")
        attack: Callable[..., Any] = getattr(import_module(f"contraverse.attacks.{module}"), name)
        return attack


def _distortion(name: str, label: str, summary: str, function: str) -> AttackSpec:
    return AttackSpec(name, label, summary, "Kang et al. 2019", (), "unforeseen_accuracy", function)


ATTACKS: dict[str, AttackSpec] = {
    spec.name: spec
    for spec in (
        AttackSpec(
            "fgm", "FGM", "one step along the gradient, scaled to L2 norm epsilon", "SCAL eq. (3)", ("l2",), None,
            "gradient:fgm",
        ),
        AttackSpec(
            "fgsm", "FGSM", "one step along the gradient's sign, epsilon per coordinate", "SCAL eq. (2)", ("linf",),
            None, "gradient:fgm",
        ),
        AttackSpec(
            "pgd", "PGD", "k projected steps, random start and restarts on request", "Madry et al. 2018",
            function="gradient:pgd", first_step=lambda epsilon, steps: 2.5 * epsilon / steps,
        ),
        AttackSpec(
            "apgd", "APGD", "PGD with steps that halve, on cross-entropy, then DLR", "Croce & Hein 2020",
            function="auto_pgd:apgd", losses=_without_saturation, first_step=lambda epsilon, steps: 2 * epsilon,
        ),
        AttackSpec(
            "autoattack", "AutoAttack", "APGD, targeted APGD, FAB and Square, one after another, on images",
            "Croce & Hein 2020", ("linf", "l2", "l1"), "auto_attack",
        ),
        _distortion("linf", "L∞", "images: each byte by at most epsilon, towards a random class", "distortions:Linf"),
        _distortion("l2", "L2", "images: bytes by at most epsilon in L2", "distortions:L2"),
        _distortion("l1", "L1", "images: bytes by at most epsilon in L1", "distortions:L1"),
        _distortion("jpeg_linf", "JPEG L∞", "images: noise on JPEG's coefficients", "distortions:Jpeg"),
        _distortion("jpeg_l1", "JPEG L1", "images: noise on JPEG's coefficients, sparse", "distortions:JpegL1"),
        _distortion("elastic", "elastic", "images: a smooth flow of pixels", "distortions:Elastic"),
        _distortion("fog", "fog", "images: fog by the diamond-square algorithm", "weather:Fog"),
        _distortion("snow", "snow", "images: streaks of snow", "weather:Snow"),
        _distortion("gabor", "Gabor", "images: Gabor noise", "weather:Gabor"),
    )
}  # fmt: skip


def attacks_of(measured_by: str) -> dict[str, AttackSpec]:
    """The attacks that the function of this name measures accuracy under, by name."""
    return {name: spec for name, spec in ATTACKS.items() if spec.measured_by == measured_by}


def attack_label(name: str) -> str:
    """Name of an attack in a report: "AutoAttack"; one that is not in the table in capitals."""
    return ATTACKS[name].label if name in ATTACKS else name.upper()


def gradient_attack(name: str) -> AttackSpec:
    """The attack of this name, which `contraverse.evaluation.robust_accuracy` can run.

    Raises:
        UserError: there is none.
    """
    known = attacks_of("robust_accuracy")
    if name not in known:
        raise unknown("attack", name, known)
    return known[name]

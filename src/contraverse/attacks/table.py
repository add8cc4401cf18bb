"""The table of attacks and settings of one: command line, configuration, evaluation, report and documentation read it.

A new attack is one file with a function of `contraverse.attacks.pgd`'s signature, and one row here. Imports without
torch, so that ``--help`` and a wrong setting answer at once.
"""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from contraverse.errors import UserError, unknown
from contraverse.units import Number


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


class AttackConfig(BaseModel):
    """Strength of the attack at each radius: the part that a configuration sets.

    Attributes:
        attack: ``"pgd"`` maximizes the cross-entropy in fixed steps (Madry et al., 2018). ``"apgd"`` halves its steps
            (Croce & Hein, 2020), and maximizes the cross-entropy, then on the rows that still hold the DLR loss; of
            two classes the margin alone. With three classes or more it costs up to twice as much.
        norm: ``"l2"`` of the flattened (T, D) perturbation, or ``"linf"`` per coordinate.
        steps: gradient steps per attempt, >= 1. An attempt costs ``2 * steps + 1`` forward-units.
        step_size: length of a (first) step, in the units of the radii; None is 2.5 epsilon / steps for PGD and
            2 epsilon for APGD.
        restarts: attempts on each row that is still right, with each loss; the second and later start at random.
        random_start: start the first attempt at random, too; else at zero.
        relative: radii and ``step_size`` are fractions of each row's own ||E||, E the word embeddings.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    attack: str = "pgd"
    norm: Literal["l2", "linf"] = "l2"
    steps: int = Field(default=5, ge=1)
    step_size: Annotated[Number, Field(gt=0)] | None = None
    restarts: int = Field(default=1, ge=1)
    random_start: bool = False
    relative: bool = False

    @field_validator("attack")
    @classmethod
    def _check_attack(cls, attack: str) -> str:
        return gradient_attack(attack).name

    @model_validator(mode="after")
    def _check_norm(self) -> "AttackConfig":
        if self.norm not in self.spec.norms:
            raise UserError(
                f"{self.spec.label} has no norm {self.norm}", where="norm", hint=f"use {', '.join(self.spec.norms)}"
            )
        return self

    @property
    def spec(self) -> AttackSpec:
        """The attack's row of the table."""
        return gradient_attack(self.attack)

    def attack_settings(self) -> dict[str, Any]:
        """The fields of the attack alone, by name: arguments of `contraverse.evaluation.robust_accuracy`."""
        return {name: getattr(self, name) for name in AttackConfig.model_fields}

    def first_step(self, epsilon: float) -> float:
        """Length of the (first) step at this radius."""
        return self.spec.first_step(epsilon, self.steps) if self.step_size is None else self.step_size

    def losses(self, classes: int) -> tuple[str, ...]:
        """Names of the losses that are maximized in turn: see `contraverse.evaluation.attack_loop.LOSSES`."""
        return self.spec.losses(classes)

    def attempts(self, classes: int) -> int:
        """Attempts on a row that holds: restarts times losses. One costs ``2 * steps + 1`` forward-units."""
        return self.restarts * len(self.losses(classes))


class AttackSettings(AttackConfig):
    """Settings of one call: strength of the attack, seed of its random starts, and the batch norms that are attacked.

    Raises:
        UserError: a setting is impossible.
    """

    seed: int = 0
    bn_branch: Literal["clean", "adversarial"] = "adversarial"

    def __init__(self, **settings: Any) -> None:
        try:
            super().__init__(**settings)
        except ValidationError as error:
            raise _explained(error) from error

    def to_dict(self) -> dict[str, Any]:
        """Values for JSON: ``name`` is the attack's. Without the batch norms, of which most models have one set."""
        return {"name": self.attack, **self.model_dump(exclude={"attack", "bn_branch"})}


def _explained(error: ValidationError) -> UserError:
    """The first mistake in a user's words."""
    first = error.errors(include_url=False)[0]
    if isinstance(mistake := first.get("ctx", {}).get("error"), UserError):
        return mistake
    name, message = ".".join(map(str, first["loc"])), first["msg"]
    if first["type"] == "extra_forbidden":
        return UserError(
            f"no such setting of an attack: {name}", hint=f"known: {', '.join(AttackSettings.model_fields)}"
        )
    return UserError(
        f"{first['input']!r} is not possible: {message.replace('Input should be', 'it must be')}", where=name
    )

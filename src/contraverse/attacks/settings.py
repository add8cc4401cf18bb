"""Settings of an attack on rows of a data set, as configurations and Python calls give them. Imports without torch."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from contraverse.attacks.table import AttackSpec, gradient_attack
from contraverse.errors import UserError
from contraverse.units import Number


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

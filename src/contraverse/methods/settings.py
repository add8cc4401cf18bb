"""Settings that several methods share, with their ranges."""

from typing import Annotated, Literal

from pydantic import Field

from contraverse.attacks import NormBall
from contraverse.errors import UserError
from contraverse.functional import SameClass, Scope
from contraverse.types import HeadSpec, TrainingInfo
from contraverse.units import Number

Epsilon = Annotated[
    Number, Field(gt=0, allow_inf_nan=False, description="size of the perturbation, in the units of the inputs")
]
Alpha = Annotated[float, Field(ge=0, allow_inf_nan=False, description="weight of the contrastive loss")]
Temperature = Annotated[float, Field(gt=0, allow_inf_nan=False, description="temperature of the contrastive loss")]
Steps = Annotated[int, Field(ge=1, description="passes or ascents of one step")]
StepSize = Annotated[Number, Field(gt=0, allow_inf_nan=False, description="length of one ascent")]
Limit = Annotated[Number, Field(gt=0, allow_inf_nan=False, description="largest norm of a perturbation")] | None
Gamma = Annotated[Number, Field(ge=0, allow_inf_nan=False, description="size of the random start")]
EPSILON, STEP_SIZE = 8 / 255, 2 / 255
"""Of attacks on pixels in [0, 1], in Linf."""
PROJECTION = {"z": HeadSpec()}
"""The head of the contrastive losses: one linear layer as wide as the encoder, and tanh (SCAL's "pooler layer")."""
HeadLayers = Annotated[int, Field(ge=1, description="linear layers of the projection head")]
HeadDim = Annotated[int, Field(ge=1, description="width of what the projection head gives; null: the encoder's")] | None


def mlp_projection(layers: int, dim: int | None) -> dict[str, HeadSpec]:
    """The head of SimCLR and ACL: linear layers as wide as the encoder, the last one ``dim``, each with batch norm.

    ACL has three of the encoder's width, SimCLR two, of which the last is 128 wide.
    """
    return {"z": HeadSpec(kind="mlp", layers=layers, dim=dim)}


Projection = Annotated[
    Literal["new", "pooler"], Field(description="what z is: a new layer on h, or what the encoder's own pooler gives")
]
SameClassRows = Annotated[
    SameClass, Field(description="what other rows of an anchor's class are: negatives, masked out, or positives too")
]
OneStep = Literal["fgm", "fgsm"]


def one_step_ball(attack: OneStep, epsilon: float, scope: Scope) -> NormBall:
    """The ball in which one step is FGM (L2, SCAL eq. 3) or FGSM (Linf, eq. 2)."""
    return NormBall(epsilon, step_size=epsilon, norm="l2" if attack == "fgm" else "linf", scope=scope)


def projection_of(projection: Literal["new", "pooler"]) -> dict[str, HeadSpec]:
    """The head ``z`` of a contrastive loss: a layer of its own, or the encoder's pooler."""
    return PROJECTION if projection == "new" else {"z": HeadSpec(kind="pooler")}


def require_classes(method: str, same_class: SameClass, training_info: TrainingInfo) -> None:
    """Refuse to tell rows of the same class by scores.

    Raises:
        UserError: ``same_class`` needs classes, and the labels are none.
    """
    if same_class != "negatives" and (training_info.labels is None or training_info.labels.is_floating_point()):
        raise UserError(
            f"{method} with same_class={same_class} needs classes",
            where="method.same_class",
            hint="use same_class=negatives, which reads no labels",
        )

"""Settings of methods: the decorator that makes them out of annotated attributes, and the types that several share."""

import dataclasses
import inspect
import types
from collections.abc import Callable
from functools import wraps
from typing import Annotated, Any, Literal, NamedTuple, TypeVar, Union, dataclass_transform, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from pydantic.fields import FieldInfo
from torch import nn

from contraverse.attacks import NormBall
from contraverse.errors import UserError
from contraverse.functional import SameClass, Scope
from contraverse.types import HeadSpec, Method, TrainingInfo
from contraverse.units import Number

M = TypeVar("M", bound=Method)


@dataclass_transform(kw_only_default=True, eq_default=False)
def settings(cls: type[M]) -> type[M]:
    """Make the annotated attributes of a method its settings: keyword arguments with a type, a range and a default.

    The one declaration serves the signature, ``--set method.name=value`` and the table of the docs page. The text below
    an attribute is its description::

        @settings
        class Mine(Method):
            beta: Annotated[float, Field(ge=0)] = 1.0
            \"\"\"Weight of the second term.\"\"\"

    Values are checked and converted by pydantic when a method is made; then `Method.setup` runs. A subclass inherits
    the settings of its base. Annotate nothing else in the class body: buffers belong into ``setup``.
    """
    made: Any = dataclass(kw_only=True, eq=False, config=ConfigDict(extra="forbid", use_attribute_docstrings=True))(cls)
    check: Callable[..., None] = made.__init__

    @wraps(check)
    def init(self: Method, **values: Any) -> None:
        check(self, **values)
        # Afterwards, as pydantic replaces all of the instance's attributes.
        nn.Module.__init__(self)
        self.setup()

    parameters = inspect.signature(made).parameters.values()
    own = inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)
    vars(init)["__signature__"] = inspect.Signature([own, *parameters])
    made.__init__ = init
    return cls


class Setting(NamedTuple):
    """A setting of a method: its type with its range, its default (``...`` where it must be set), its description."""

    annotation: Any
    default: Any
    description: str

    @property
    def values(self) -> str:
        """Possible values for a table, for example ``> 0 or null``; empty where the type alone says it."""
        return " or ".join(filter(None, _values(self.annotation, [])))

    @property
    def shown_default(self) -> str:
        """Default for a table: radii of pixels as fractions."""
        return f"{255 * self.default:g}/255" if self.default in (EPSILON, STEP_SIZE) else str(self.default)


def settings_of(method: type[Method]) -> dict[str, Setting]:
    """Settings of a method by name, its own first, then those of its bases.

    For a class that is not decorated, the keyword arguments of its ``__init__``, without descriptions.
    """
    if not dataclasses.is_dataclass(method):
        parameters = inspect.signature(method.__init__, eval_str=True).parameters.values()
        return {
            p.name: Setting(p.annotation, ... if p.default is p.empty else p.default, "")
            for p in parameters
            if p.kind is p.KEYWORD_ONLY
        }
    result: dict[str, Setting] = {}
    types_of = {field.name: field.type for field in dataclasses.fields(method)}
    for owner in method.__mro__:
        fields: dict[str, FieldInfo] = vars(owner).get("__pydantic_fields__", {})
        for name in inspect.get_annotations(owner):
            if name in fields and name not in result:
                description = " ".join((fields[name].description or "").split())
                result[name] = Setting(types_of[name], getattr(method, name, ...), description)
    return result


def _values(annotation: Any, bounds: list[Any]) -> list[str]:
    origin = get_origin(annotation)
    if origin is Annotated:
        base, *metadata = get_args(annotation)
        inner = [bound for entry in metadata for bound in (entry.metadata if isinstance(entry, FieldInfo) else [entry])]
        return _values(base, [*bounds, *inner])
    if origin in (Union, types.UnionType):
        return [text for member in get_args(annotation) for text in _values(member, bounds)]
    if annotation is type(None):
        return ["null"]
    if origin is Literal:
        return [", ".join(f"`{value}`" for value in get_args(annotation))]
    return [_range(bounds)]


def _range(bounds: list[Any]) -> str:
    low = next((bound for bound in bounds if isinstance(bound, Gt | Ge)), None)
    high = next((bound for bound in bounds if isinstance(bound, Lt | Le)), None)
    if low is not None and high is not None:
        left = f"({low.gt}" if isinstance(low, Gt) else f"[{low.ge}"
        return f"{left}, {high.lt})" if isinstance(high, Lt) else f"{left}, {high.le}]"
    if low is not None:
        return f"> {low.gt}" if isinstance(low, Gt) else f">= {low.ge}"
    if high is not None:
        return f"< {high.lt}" if isinstance(high, Lt) else f"<= {high.le}"
    return ""


Epsilon = Annotated[Number, Field(gt=0, allow_inf_nan=False)]
"""Size of a perturbation, in the units of the inputs."""
Limit = Annotated[Number, Field(gt=0, allow_inf_nan=False)] | None
"""Largest norm of a perturbation; None is no limit."""
StepSize = Annotated[Number, Field(gt=0, allow_inf_nan=False)]
Gamma = Annotated[Number, Field(ge=0, allow_inf_nan=False)]
"""Size of a random start."""
Steps = Annotated[int, Field(ge=1)]
VirtualSteps = Annotated[int, Field(ge=0)]
"""Number of steps from noise; 0 keeps the noise as it is."""
Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]
"""Weight of a term of the loss."""
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Temperature = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Sigma = Annotated[float, Field(ge=0, allow_inf_nan=False)]
"""Standard deviation of noise."""
Momentum = Annotated[float, Field(ge=0, lt=1)]
"""Share of the old value that a moving average keeps at an update."""
Epochs = Annotated[float, Field(ge=0, allow_inf_nan=False)]
HeadLayers = Annotated[int, Field(ge=1)]
HeadDim = Annotated[int, Field(ge=1)] | None
Projection = Literal["new", "pooler"]
OneStep = Literal["fgm", "fgsm"]

EPSILON, STEP_SIZE = 8 / 255, 2 / 255
"""Defaults of Linf attacks on pixels in [0, 1]."""
PROJECTION = {"z": HeadSpec()}
"""Head of the contrastive losses: one linear layer as wide as the encoder, then tanh (SCAL's "pooler layer")."""


def mlp_projection(layers: int, dim: int | None) -> dict[str, HeadSpec]:
    """Projection head of SimCLR and ACL: ``layers`` linear layers, the last ``dim`` wide, each with batch norm.

    ACL has three layers of the encoder's width; SimCLR has two, the last of them 128 wide.
    """
    return {"z": HeadSpec(kind="mlp", layers=layers, dim=dim)}


def projection_head(projection: Projection) -> dict[str, HeadSpec]:
    """Head ``z`` of a contrastive loss: a new layer, or the encoder's own pooler."""
    return PROJECTION if projection == "new" else {"z": HeadSpec(kind="pooler")}


def one_step_ball(attack: OneStep, epsilon: float, scope: Scope) -> NormBall:
    """Ball in which one step is FGM (L2, SCAL eq. 3) or FGSM (Linf, eq. 2)."""
    return NormBall(epsilon, step_size=epsilon, norm="l2" if attack == "fgm" else "linf", scope=scope)


def require_classes(method: str, same_class: SameClass, training_info: TrainingInfo) -> None:
    """Check that the labels are classes where a contrastive loss compares them.

    Raises:
        UserError: ``same_class`` needs classes, and the labels are scores or missing.
    """
    labels = training_info.labels
    if same_class != "negatives" and (labels is None or labels.is_floating_point()):
        raise UserError(
            f"{method} with same_class={same_class} needs classes",
            where="method.same_class",
            hint="use same_class=negatives, which reads no labels",
        )

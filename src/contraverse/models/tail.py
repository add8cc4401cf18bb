"""Modules that follow the pooling in a sentence-transformers folder: dense layers, normalisations."""

from collections.abc import Sequence
from typing import Literal

import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from contraverse.errors import UserError


class DenseSpec(BaseModel):
    """``activation(W x + b)``, plus ``x`` (or a linear map of it where widths differ) with ``residual``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["dense"] = "dense"
    inputs: int = Field(ge=1, le=1_000_000)
    outputs: int = Field(ge=1, le=1_000_000)
    bias: bool = True
    activation: str = "Tanh"
    residual: bool = False


class NormalizeSpec(BaseModel):
    """Length one."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["normalize"] = "normalize"


class LayerNormSpec(BaseModel):
    """Mean zero and variance one over the dimensions, times a weight and plus a bias."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["layer-norm"] = "layer-norm"
    width: int = Field(ge=1, le=1_000_000)


Spec = DenseSpec | NormalizeSpec | LayerNormSpec


class Dense(nn.Module):
    """See `DenseSpec`; parameters have sentence-transformers' names."""

    def __init__(self, spec: DenseSpec) -> None:
        super().__init__()
        self.linear = nn.Linear(spec.inputs, spec.outputs, bias=spec.bias)
        self.activation = activation_of(spec.activation)
        self.residual: nn.Module | None = None
        if spec.residual:
            same = spec.inputs == spec.outputs
            self.residual = nn.Identity() if same else nn.Linear(spec.inputs, spec.outputs, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """``x`` (N, inputs) -> (N, outputs)."""
        out: Tensor = self.activation(self.linear(x))
        return out if self.residual is None else out + self.residual(x)


class Normalize(nn.Module):
    """Rows of length one."""

    def forward(self, x: Tensor) -> Tensor:
        """``x`` (N, D) over its length."""
        return F.normalize(x, dim=-1)


class LayerNorm(nn.Module):
    """See `LayerNormSpec`; parameters have sentence-transformers' names."""

    def __init__(self, spec: LayerNormSpec) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(spec.width)

    def forward(self, x: Tensor) -> Tensor:
        """``x`` (N, width), normed."""
        out: Tensor = self.norm(x)
        return out


class Tail(nn.Module):
    """Modules in a row, from a pooled vector (N, H) to an embedding (N, D), built from their ``specs``."""

    def __init__(self, specs: Sequence[Spec]) -> None:
        super().__init__()
        self.specs = list(specs)
        self.parts = nn.ModuleList(_build(spec) for spec in specs)

    def forward(self, x: Tensor) -> Tensor:
        """``x`` (N, H) through all of them."""
        for part in self.parts:
            x = part(x)
        return x


def activation_of(name: str) -> nn.Module:
    """An activation of torch's by the name of its class.

    Raises:
        UserError: torch has none of this name.
    """
    kind = getattr(nn.modules.activation, name, None) if name != "Identity" else nn.Identity
    if not (isinstance(kind, type) and issubclass(kind, nn.Module)):
        raise UserError(f"no activation of torch is called {name!r}")
    built = kind()
    if any(True for _ in built.parameters()):
        raise UserError(f"an activation {name!r} has weights of its own")
    return built


def _build(spec: Spec) -> nn.Module:
    if isinstance(spec, DenseSpec):
        return Dense(spec)
    return LayerNorm(spec) if isinstance(spec, LayerNormSpec) else Normalize()

"""Projection heads."""

from collections import OrderedDict

from torch import nn

from contraverse.types import HeadSpec


def build_head(spec: HeadSpec, width: int, std: float = 0.02) -> nn.Sequential:
    """``Linear(width, spec.dim)`` and its activation: SimCSE's and SCAL's "pooler layer".

    Weights are drawn from N(0, std) and biases are zero, as Hugging Face initialises its own heads.
    """
    dense = nn.Linear(width, spec.dim or width)
    nn.init.normal_(dense.weight, std=std)
    nn.init.zeros_(dense.bias)
    activation = nn.Tanh() if spec.activation == "tanh" else nn.Identity()
    return nn.Sequential(OrderedDict(dense=dense, activation=activation))

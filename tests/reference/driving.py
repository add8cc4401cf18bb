"""Driving a method in tests, and watching what it does to the model."""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from contraverse.methods import METHODS
from contraverse.training import step
from contraverse.types import Loss, Method, Outputs

CASES: dict[str, tuple[str, dict[str, Any]]] = {name: (name, {}) for name in METHODS}
CASES |= {
    "at-fgsm": ("at", {"attack": "fgsm", "epsilon": 0.01}),
    "at-token": ("at", {"scope": "token"}),
    "scal-fgsm": ("scal", {"attack": "fgsm", "epsilon": 0.01}),
    "scal-literal": ("scal", {"contrast": "literal"}),
    "scal-alpha-0": ("scal", {"alpha": 0.0}),
    "uscal-fgsm": ("uscal", {"attack": "fgsm", "epsilon": 0.01}),
}
"""Every method with its defaults, and settings of some that change what is computed."""


def make(case: str) -> Method:
    """A fresh method of ``CASES``."""
    name, settings = CASES[case]
    return METHODS[name](**settings)


@dataclass
class Call:
    """One forward pass: what it was given and gave."""

    delta: Tensor | None
    want: tuple[str, ...]
    out: Outputs
    grad_enabled: bool


@dataclass
class Watch:
    """Calls of a `Watched` model, in order."""

    calls: list[Call] = field(default_factory=list)

    def passes(self) -> list[Call]:
        """Those that ran the network."""
        return [call for call in self.calls if call.want != ("inputs",)]


class Watched(nn.Module):
    """A wrapper, as DDP or a compiled model is: it has nothing of the model's but its forward."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.module = model
        self.watch = Watch()

    def forward(self, batch: Any, **arguments: Any) -> Outputs:
        out: Outputs = self.module(batch, **arguments)
        delta = arguments.get("delta")
        want = tuple(arguments.get("want", ("logits",)))
        self.watch.calls.append(
            Call(None if delta is None else delta.detach().clone(), want, out, torch.is_grad_enabled())
        )
        return out


def losses_of(method: Method, model: nn.Module, batch: Any) -> list[Loss]:
    """Every loss that the method yields, each back-propagated as the driver does."""
    seen = []
    for loss in method.losses(model, batch):
        loss.total.backward()
        seen.append(Loss(loss.total.detach(), loss.parts))
    return seen


def gradients(method: Method, model: nn.Module, batch: Any, scale: float = 1.0) -> dict[str, Tensor]:
    """Parameter gradients after one step, from zero; parameters without one are left out."""
    model.zero_grad()
    step(method, model, batch, backward=lambda loss: (loss * scale).backward())
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def flat(grads: dict[str, Tensor]) -> Tensor:
    return torch.cat([g.flatten() for _, g in sorted(grads.items())])

"""What an image model is given, pass by pass, and what it then remembers."""

import copy
from dataclasses import dataclass
from typing import Any

import torch
from reference.images import CLASSES, buffers, image_batch, tiny
from torch import Tensor, nn

from contraverse.types import ForwardCalls, HeadCall, Method, Outputs, TrainingInfo


@dataclass
class ForwardCall:
    """One pass of the network: what it read, in which mode, and the model's buffers before it."""

    pixels: Tensor
    delta: Tensor | None
    bn_branch: str
    training: bool
    before: dict[str, Tensor]
    out: Outputs


class Spy(nn.Module):
    """A wrapper that notes every pass."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.module = model
        self.passes: list[ForwardCall] = []

    def forward(self, batch: Any, **arguments: Any) -> Any:
        if isinstance(batch, ForwardCalls):
            return batch.run(self)
        before = buffers(self.module)
        out: Outputs = self.module(batch, **arguments)
        if arguments.get("want") != ("inputs",) and not isinstance(batch, HeadCall):
            delta = arguments.get("delta")
            self.passes.append(
                ForwardCall(
                    batch["pixel_values"],
                    None if delta is None else delta.detach().clone(),
                    arguments.get("bn_branch", "clean"),
                    any(module.training for module in self.module.modules()),
                    before,
                    out,
                )
            )
        return out

    def attacks(self) -> list[ForwardCall]:
        """The passes that an attack made with a perturbation."""
        return [each for each in self.passes if not each.training and each.delta is not None]

    def trained(self) -> list[ForwardCall]:
        """The passes in training mode."""
        return [each for each in self.passes if each.training]


def views(rows: int = 3, size: int = 8) -> dict[str, Any]:
    """Images and a second view of each."""
    batch = image_batch(rows, size)
    return {**batch, "positive": {"pixel_values": image_batch(rows, size, seed=7)["pixel_values"]}}


def told(method: Method, rows: int = 8, epochs: float = 4.0, model: nn.Module | None = None) -> Method:
    """``method`` after what a trainer does before training; the copy that it may want is of ``model``."""
    method.prepare(TrainingInfo(num_examples=rows, hidden_size=64, epochs=epochs))
    if method.needs_reference_model and model is not None:
        method.set_reference_model(copy.deepcopy(model))
    return method


def dual(method: Method, labels: Any = CLASSES) -> Any:
    """A shaken dual model with the method's heads, in training mode."""
    return tiny(labels, dual=True, heads=method.heads).train()


def drive(method: Method, model: nn.Module, batch: Any, seed: int = 3) -> tuple[float, dict[str, Tensor]]:
    """The sum of the losses of one step, and the gradients of the parameters that it used."""
    model.zero_grad()
    torch.manual_seed(seed)
    total = 0.0
    for loss in method.losses(model, batch):
        loss.total.backward()
        total += float(loss.total.detach())
    named = {name.removeprefix("module."): p.grad for name, p in model.named_parameters()}
    return total, {name: grad.clone() for name, grad in named.items() if grad is not None}

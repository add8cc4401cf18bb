"""Watching what an adversarial method does to a model of images."""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from reference.driving import gradients
from reference.images import image_batch, tiny
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from contraverse.models import ImageModel
from contraverse.types import ForwardCalls, HeadCall, Method


@dataclass
class ForwardCall:
    """One run of the backbone."""

    pixels: Tensor
    delta: Tensor | None
    bn_branch: str
    training: bool
    seen: Tensor
    """What reaches the normalisation."""


@contextmanager
def watching(model: ImageModel) -> Iterator[list[ForwardCall]]:
    """Every run of the backbone inside, in order."""
    found: list[ForwardCall] = []

    def note(module: nn.Module, args: Any, settings: Any) -> None:
        if isinstance(args[0], ForwardCalls):
            for one in args[0].calls:
                note(module, (one.batch,), {"delta": one.delta, "want": one.want, "bn_branch": one.bn_branch})
            return
        if isinstance(args[0], HeadCall) or settings.get("want") == ("inputs",):
            return
        pixels, delta = args[0]["pixel_values"], settings.get("delta")
        delta = None if delta is None else delta.detach().clone()
        seen = pixels if delta is None else pixels + delta
        found.append(
            ForwardCall(
                pixels.clone(), delta, settings.get("bn_branch", "clean"), module.encoder.training, seen.clone()
            )
        )

    hook = model.register_forward_pre_hook(note, with_kwargs=True)
    try:
        yield found
    finally:
        hook.remove()


def run(method: Method, model: ImageModel, batch: Any) -> tuple[list[ForwardCall], Tensor]:
    """The passes of one step of a method with one loss, and its total, back-propagated."""
    if method.trainable == "classifier":
        model.freeze_encoder()
    with watching(model) as passes:
        (loss,) = method.losses(model, batch)
    model.zero_grad()
    loss.total.backward()
    return passes, loss.total.detach()


def grads(model: nn.Module) -> dict[str, Tensor]:
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def tracked(model: nn.Module) -> dict[str, set[int]]:
    """How often each set of batch norms has seen a batch in training mode; one set's name is ``""``."""
    counts: dict[str, set[int]] = {}
    for name, value in model.named_buffers():
        parts = name.split(".")
        if parts[-1] == "num_batches_tracked":
            which = parts[-2] if parts[-2] in ("clean", "adversarial") else ""
            counts.setdefault(which, set()).add(int(value))
    return counts


def fresh(method: Method, *, dual: bool = False, training: bool = True) -> ImageModel:
    """A shaken resnet8 with the method's heads, and no batch counted yet."""
    model = tiny(dual=dual, heads=method.heads).train(training)
    for name, value in model.named_buffers():
        if name.endswith("num_batches_tracked"):
            value.zero_()
    return model


def replayed(before: ImageModel, passes: list[ForwardCall]) -> ImageModel:
    """A copy of ``before`` after those passes alone that were made in training mode."""
    model = copy.deepcopy(before)
    for one in passes:
        if one.training:
            model({"pixel_values": one.pixels}, delta=one.delta, want=("h",), bn_branch=one.bn_branch)
    return model


def flops(work: Callable[[], Any]) -> int:
    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()


def cost(method: Method, forward: Callable[[ImageModel, Any], Any]) -> float:
    """Forward-units of one step on four images of 16 x 16 pixels."""
    model, batch = fresh(method), image_batch(rows=4, size=16)
    one = flops(lambda: forward(model, batch))
    return flops(lambda: gradients(method, model, batch)) / one


def close(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    largest = max(float(value.abs().max()) for value in expected.values())
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-3, atol=1e-5 * largest)

"""Modes and layouts of modules."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Eval mode inside; every module's own mode again afterwards, a layer frozen in eval mode included."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


@contextmanager
def without_autocast(model: nn.Module) -> Iterator[None]:
    """The model in the precision of its weights inside, whatever mixed precision it is trained in; as before afterwards.

    Accelerate trains in bf16 or fp16 by an autocast around the ``forward`` of the module itself, which runs in every
    call until training ends, those of an evaluator included. An autocast of a caller is turned off, too.
    """
    wrapped = model.__dict__.pop("forward", None) if "_original_forward" in model.__dict__ else None
    device = next((parameter.device.type for parameter in model.parameters()), "cpu")
    try:
        with torch.autocast(device, enabled=False):
            yield
    finally:
        if wrapped is not None:
            model.__dict__["forward"] = wrapped


def channels_last(module: nn.Module) -> nn.Module:
    """``module`` with the weights of its convolutions in channels-last layout, in place.

    Else each pass over channels-last images, and each backward pass, copies them into it.
    """
    for weight in module.parameters():
        # Of one pixel or one channel both layouts are the same, but for strides that synchronised gradients may miss.
        if weight.dim() == 4 and weight.shape[1] > 1 and weight.shape[2] * weight.shape[3] > 1:
            weight.data = weight.data.contiguous(memory_format=torch.channels_last)
    return module

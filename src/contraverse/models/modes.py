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


def channels_last(module: nn.Module) -> nn.Module:
    """``module`` with the weights of its convolutions in channels-last layout, in place.

    Else each pass over channels-last images, and each backward pass, copies them into it.
    """
    for weight in module.parameters():
        # Of one pixel or one channel both layouts are the same, but for strides that synchronised gradients may miss.
        if weight.dim() == 4 and weight.shape[1] > 1 and weight.shape[2] * weight.shape[3] > 1:
            weight.data = weight.data.contiguous(memory_format=torch.channels_last)
    return module

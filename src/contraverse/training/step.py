"""The driver: fifteen lines between a method and any training loop."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from torch import Tensor, nn

from contraverse.types import Batch, Method


def step(
    method: Method,
    model: nn.Module,
    batch: Batch,
    *,
    backward: Callable[[Tensor], Any],
    no_sync: Callable[[], AbstractContextManager[Any]] = nullcontext,
) -> list[dict[str, Tensor]]:
    """Run one training step of ``method``: draw each loss, back-propagate it, resume.

    Zeroing, clipping and the optimizer's step are the caller's.

    Args:
        method: what to train with.
        model: the model, wrapped (DDP, FSDP, compiled) or not.
        batch: on the model's device.
        backward: called with each loss, for example ``lambda loss: loss.backward()`` or ``accelerator.backward``.
        no_sync: a context in which gradients are not reduced over ranks (DDP's ``no_sync``). It covers forward
            *and* backward of every pass but the last: around ``backward`` alone it would do nothing.

    Returns:
        The parts of each loss, detached, for the log.

    Raises:
        ValueError: the method yields fewer or more losses than its ``passes``.
    """
    losses, passes = method.losses(model, batch), method.passes
    seen = []
    for i in range(passes):
        with no_sync() if i < passes - 1 else nullcontext():
            loss = next(losses, None)
            if loss is None:
                raise ValueError(f"{type(method).__name__} yielded {i} losses, but declares passes = {passes}")
            backward(loss.total)
        seen.append(loss.parts)
    if next(losses, None) is not None:
        raise ValueError(f"{type(method).__name__} yields more losses than its passes = {passes}")
    return seen

"""The driver between a method and any training loop."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from torch import Tensor, nn

from contraverse.errors import UserError
from contraverse.functional import processes
from contraverse.models.chunks import chunking
from contraverse.types import Batch, Loss, Method


def step(
    method: Method,
    model: nn.Module,
    batch: Batch,
    *,
    backward: Callable[[Tensor], Any],
    no_sync: Callable[[], AbstractContextManager[Any]] = nullcontext,
    contrast_chunk: int | None = None,
) -> list[dict[str, Tensor]]:
    """Run one training step of ``method``: take each loss that it yields, back-propagate it, resume the method.

    Zeroing, clipping and the optimizer's step are the caller's.

    Args:
        method: training method.
        model: the model, wrapped (DDP, FSDP, compiled) or not.
        batch: rows, on the model's device.
        backward: called with each loss, for example ``lambda loss: loss.backward()`` or ``accelerator.backward``.
        no_sync: a context in which gradients are not reduced over ranks (DDP's ``no_sync``). It covers forward
            *and* backward of every pass but the last: around ``backward`` alone it would do nothing.
        contrast_chunk: most rows whose activations are held at once; None is all. The loss is still over the whole
            batch; each backward pass costs one forward more. See `contraverse.models.chunks`.

    Returns:
        The parts of each loss, detached, for the log.

    Raises:
        UserError: ``losses`` is no generator, yields something else than a scalar loss, or yields fewer or more losses
            than the method's ``passes``; a batch of one row for a method with in-batch negatives; or a model that does
            not run in chunks.
    """
    name = type(method).__name__
    losses, passes = method.losses(model, batch), method.passes
    if not isinstance(losses, Iterator):
        raise UserError(
            f"{name}.losses() must yield its losses, and returned a {type(losses).__name__}",
            hint='write "yield Loss(total, parts)" in the place of "return"',
        )
    if method.in_batch_negatives and processes() * _rows_of(batch) == 1:
        raise UserError(
            f"{method.name} takes a row's negatives from its batch, which has one row", hint="give two rows or more"
        )
    parts = []
    with chunking((model, method), contrast_chunk):
        for i in range(passes):
            with no_sync() if i < passes - 1 else nullcontext():
                yielded = next(losses, None)
                if yielded is None:
                    raise UserError(f"{name} yielded {i} losses, but declares passes = {passes}")
                loss = _checked(yielded, name)
                backward(loss.total)
            parts.append(dict(loss.parts))
        if next(losses, None) is not None:
            raise UserError(f"{name} yields more losses than its passes = {passes}")
    return parts


def _rows_of(batch: Batch) -> int:
    return next((len(value) for value in batch.values() if isinstance(value, Tensor)), 0)


def _checked(yielded: Any, name: str) -> Loss:
    """The yielded value as a `Loss`; a tensor alone is one without parts. Reads no number: nothing waits."""
    loss = Loss(yielded) if isinstance(yielded, Tensor) else yielded
    if not isinstance(loss, Loss) or not isinstance(loss.total, Tensor):
        kind = type(loss.total if isinstance(loss, Loss) else loss).__name__
        raise UserError(
            f"{name}.losses() yielded a {kind}", hint="yield a Loss(total, parts), or the loss itself as a tensor"
        )
    if loss.total.dim():
        shape = tuple(loss.total.shape)
        raise UserError(f"{name}.losses() yielded a loss of shape {shape}", hint="yield one number: loss.mean()")
    for part, value in loss.parts.items():
        if not isinstance(value, Tensor):
            raise UserError(
                f"{name}.losses() yielded the part {part!r} as a {type(value).__name__}, not a tensor",
                hint="write loss.detach(), not loss.item(), which waits for the device",
            )
    return loss

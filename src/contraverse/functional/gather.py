"""Rows of all ranks, with gradients."""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def _distributed() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def rank() -> int:
    """This process's rank; 0 where there is only one."""
    return dist.get_rank() if _distributed() else 0


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        parts = [torch.empty_like(x) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, x.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        # Every rank's loss depends on these rows: their owner gets the sum.
        total = grads[0].clone()
        dist.all_reduce(total)
        return total.chunk(dist.get_world_size())[dist.get_rank()]


def gather(x: Tensor) -> Tensor:
    """``x`` (B, ...) of every rank, in rank order: (ranks * B, ...). B must be the same on each.

    Gradients flow back to the rank that a row came from and are summed there. With DDP's mean over ranks
    the gradient of a loss that is a mean over local anchors then equals that of one process with the
    whole batch. The identity where there is one rank.
    """
    if not _distributed():
        return x
    gathered: Tensor = _Gather.apply(x)
    return gathered

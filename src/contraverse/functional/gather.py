"""Rows of all ranks, with gradients."""

import torch
import torch.distributed as dist
from torch import Tensor


def _distributed() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def rank() -> int:
    """This process's rank; 0 where there is only one."""
    return dist.get_rank() if _distributed() else 0


def gather(x: Tensor) -> Tensor:
    """``x`` (B, ...) of every rank, in rank order: (ranks * B, ...). B must be the same on each.

    Gradients flow back to the rank that a row came from and are summed there. With DDP's mean over ranks
    the gradient of a loss that is a mean over local anchors then equals that of one process with the
    whole batch. The identity where there is one rank.
    """
    if not _distributed():
        return x
    import torch.distributed.nn.functional as dist_nn  # not present in builds without distributed

    return torch.cat(dist_nn.all_gather(x.contiguous()))

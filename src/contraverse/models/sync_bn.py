"""Batch norm over the rows of all processes, on any device: torch's own `SyncBatchNorm` runs on GPUs alone."""

from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from contraverse.errors import UserError
from contraverse.functional import gather, processes
from contraverse.models.dual_bn import replaced


class _OverProcesses(torch.autograd.Function):
    """Batch norm of x (B, C, ...) with the mean and variance of the rows of all processes.

    The gradient is that of the sum of all processes' losses: with DDP's mean over processes, the gradient of a loss
    that is a mean over rows is that of one process with the whole batch.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> tuple[Tensor, ...]:
        var, mean = torch.var_mean(x.float(), _but_channels(x), correction=0)  # (C,) each
        count = mean.new_full((1,), x.numel() / x.shape[1])
        each = gather(torch.cat([mean, var, count]).unsqueeze(0))  # (processes, 2 C + 1)
        means, variances, counts = each.split([len(mean), len(mean), 1], 1)
        count = counts.sum()
        mean = (counts * means).sum(0) / count
        # Of the parts' own spread and that of their means: squares of large values would cancel.
        var = (counts * (variances + (means - mean).square())).sum(0) / count
        ctx.save_for_backward(x, weight, mean, (var + eps).rsqrt(), count)
        ctx.mark_non_differentiable(mean, var, count)
        return F.batch_norm(x, mean, var, weight, bias, training=False, eps=eps), mean, var, count

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, scale, count = ctx.saved_tensors
        shape = (1, -1, *[1] * (x.dim() - 2))
        grad, unit = grads[0].float(), (x.float() - mean.view(shape)) * scale.view(shape)
        sums = torch.stack([grad.sum(_but_channels(x)), (grad * unit).sum(_but_channels(x))])  # (2, C)
        of_bias, of_weight = sums.clone()
        dist.all_reduce(sums)
        centre, slope = (sums / count).view(2, *shape)
        if weight is not None:
            scale = scale * weight
        of_x = scale.view(shape) * (grad - centre - unit * slope)
        needed = ctx.needs_input_grad
        return of_x.to(x.dtype), of_weight if needed[1] else None, of_bias if needed[2] else None, None


def _but_channels(x: Tensor) -> list[int]:
    return [0, *range(2, x.dim())]


class _Synced(_BatchNorm):
    """In training, takes its statistics over the rows of all processes; in eval mode and in one process as before."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or processes() == 1:
            return super().forward(x)
        self._check_input_dim(x)
        normed, mean, var, count = _OverProcesses.apply(x, self.weight, self.bias, self.eps)
        if not self.track_running_stats:
            return normed
        if self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
            moved = self.momentum if self.momentum is not None else 1 / self.num_batches_tracked.float()
            with torch.no_grad():
                self.running_mean.lerp_(mean.to(self.running_mean.dtype), moved)
                unbiased = var * count / (count - 1).clamp(min=1)
                self.running_var.lerp_(unbiased.to(self.running_var.dtype), moved)
        return normed


class SyncedBatchNorm1d(_Synced, nn.BatchNorm1d):
    """`torch.nn.BatchNorm1d` over the rows of all processes."""


class SyncedBatchNorm2d(_Synced, nn.BatchNorm2d):
    """`torch.nn.BatchNorm2d` over the rows of all processes."""


class SyncedBatchNorm3d(_Synced, nn.BatchNorm3d):
    """`torch.nn.BatchNorm3d` over the rows of all processes."""


_SYNCED: dict[type[nn.Module], type[_Synced]] = {
    nn.BatchNorm1d: SyncedBatchNorm1d,
    nn.BatchNorm2d: SyncedBatchNorm2d,
    nn.BatchNorm3d: SyncedBatchNorm3d,
}


def to_synced(module: nn.Module) -> nn.Module:
    """``module`` with every batch norm in it, both sets of a dual one included, synchronised over processes; in place.

    Parameters, buffers and their names stay the same.

    Raises:
        UserError: a batch norm of another class, whose forward pass is not known.
    """

    def synced(part: nn.Module) -> nn.Module | None:
        if not isinstance(part, _BatchNorm) or isinstance(part, _Synced | nn.SyncBatchNorm):
            return None
        if type(part) not in _SYNCED:
            raise UserError(
                f"a {type(part).__name__} cannot be synchronised over processes",
                where="train.sync_batch_norm",
                hint="set it to false: each process then takes the statistics of its own rows",
            )
        new = _SYNCED[type(part)](
            part.num_features, part.eps, part.momentum, part.affine, part.track_running_stats, device="meta"
        )
        new.__dict__.update(part.__dict__)
        return new

    return replaced(module, synced, {})

"""Norms, directions and projections of perturbations.

A perturbation of text has shape (B, T, D). A *scope* says what one norm is taken over: a whole
``"sequence"`` (flattened T x D; the default everywhere), each ``"token"``, or the whole ``"batch"``.
"""

from typing import Literal

import torch
from torch import Tensor

Norm = Literal["l2", "linf"]
Scope = Literal["sequence", "token", "batch"]


def _dims(x: Tensor, scope: Scope) -> tuple[int, ...]:
    if scope == "token":
        return (x.dim() - 1,)
    return tuple(range(0 if scope == "batch" else 1, x.dim()))


def norm(x: Tensor, kind: Norm = "l2", scope: Scope = "sequence") -> Tensor:
    """Norm of each group of ``scope``, in fp32, shaped to broadcast against ``x`` (B, ..., D)."""
    x, dims = x.float(), _dims(x, scope)
    if kind == "linf":
        return x.abs().amax(dims, keepdim=True)
    # Dividing by the largest entry first keeps the squares of a tiny gradient from underflowing to zero,
    # and of a large one (AMP's loss scale) from overflowing.
    largest = x.abs().amax(dims, keepdim=True)
    scale = torch.where(largest > 0, largest, 1.0)
    return scale * (x / scale).square().sum(dims, keepdim=True).sqrt()


def direction(grad: Tensor, kind: Norm = "l2", scope: Scope = "sequence", *, normalize_grad: bool = False) -> Tensor:
    """Steepest ascent of unit size: ``grad / ||grad||_2`` for L2, ``sign(grad)`` for Linf.

    ``normalize_grad`` gives ``grad / ||grad||`` for Linf too: no longer the steepest, FreeLB and SMART climb it.

    A group whose gradient is zero or holds a non-finite value gives exactly zero, so it never becomes a
    NaN weight. Depends on ``grad`` only up to a positive factor. Shape and dtype of ``grad``.
    """
    finite = grad.isfinite().all(dim=-1, keepdim=True) if scope == "token" else _all(grad.isfinite(), scope)
    safe = torch.where(finite, grad, 0.0)
    if kind == "linf" and not normalize_grad:
        return safe.sign()
    size = norm(safe, kind, scope)
    return torch.where(size > 0, safe.float() / torch.where(size > 0, size, 1.0), 0.0).to(grad.dtype)


def _all(x: Tensor, scope: Scope) -> Tensor:
    for dim in _dims(x, scope):
        x = x.all(dim, keepdim=True)
    return x


def zero_grad(grad: Tensor, free: Tensor | None = None, share: float = 1.0) -> Tensor:
    """Number of rows (of B) with a gradient that is zero or holds a non-finite value, as a tensor () on the device.

    Args:
        grad: (B, ...).
        free: broadcasts to ``grad``: which coordinates count; None is all.
        share: a row is zero where all of its coordinates are, or more than this share of them.
    """
    rows = grad.detach().flatten(1)  # (B, N)
    counts = torch.ones_like(rows, dtype=torch.bool) if free is None else free.expand_as(grad).flatten(1)
    zeros, size = ((rows == 0) & counts).sum(1), counts.sum(1)  # (B,)
    infinite = (~rows.isfinite() & counts).any(1)
    return ((zeros == size) | (zeros > share * size) | infinite).sum()


def project(delta: Tensor, epsilon: float | Tensor | None, kind: Norm = "l2", scope: Scope = "sequence") -> Tensor:
    """The nearest perturbation of norm at most ``epsilon`` (>= 0; a tensor broadcasts; None is no limit)."""
    if epsilon is None:
        return delta
    if kind == "linf":
        # As a number it travels with the kernel; as a tensor it would be copied to the device in each attack step.
        limit = epsilon.to(delta) if isinstance(epsilon, Tensor) else epsilon
        return delta.clamp(-limit, limit)  # type: ignore[arg-type]
    size = norm(delta, "l2", scope)
    shrink = torch.where(size > epsilon, epsilon / torch.where(size > 0, size, 1.0), 1.0)
    return delta * shrink.to(delta.dtype)

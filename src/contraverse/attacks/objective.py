"""The gradient that an attack follows, taken so that half precision neither rounds it to zero nor overflows."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from contraverse.functional import zero_grad
from contraverse.types import Inputs

LEVEL = 2.0**6
"""Largest entry of a row of the gradient at a network's outputs, up to a factor of two, on its way back.

Half precision holds 2^-24 to 2^16. In MiniLM, from its first step to a fitted batch, gradients on the way were up to
2^4 times as large as that at the logits, and their root mean square down to 2^-19 of it.
"""
UNTOLD = 2.0**8
"""Factor of a loss without known outputs: of a sum over rows it overflows no sooner than `LEVEL` does."""
EXPONENT = 0x7F800000
"""Bits of a float32 that hold its exponent."""
MOSTLY = 0.5
"""Share of a sequence's coordinates with a gradient of exactly zero above which the gradient was lost.

A gradient that underflows is left at [CLS] alone, which of a sentence of twelve tokens is a twelfth."""


class Objective(NamedTuple):
    """A loss to maximize, and the outputs of the network that it reads.

    ``loss``: one value per row (B,), or a scalar, such as a mean over rows. ``outputs`` (B, ...), in fp32 or better:
    all that it reads of the perturbed pass; cast them with ``.float()`` before the loss is computed from them. How the
    loss mixes their rows does not matter. ``per_example``: whether each row of the outputs depends on its own row of
    the perturbation alone. It does not through a batch norm in training mode.
    """

    loss: Tensor
    outputs: Tensor
    per_example: bool = True


LossOf = Callable[[Tensor], Tensor | Objective]
"""The loss to maximize as a function of the perturbation: one value per row (B,), or a scalar.

As an `Objective`, with the outputs of the network that it reads, its gradient is right in half precision however small
the loss is."""


def losses_of(objective: Tensor | Objective) -> Tensor:
    """The loss itself: one value per row (B,), or a scalar."""
    return objective.loss if isinstance(objective, Objective) else objective


def input_gradient(objective: Tensor | Objective, delta: Tensor, *, keep_graph: bool = False) -> Tensor:
    """Gradient of the sum of the losses at ``delta``, in its shape; in fp32 where ``delta`` is in half precision.

    Under fp16 autocast a network's gradients are float16, and below 6e-8 they are zero: a row that is fitted, or the
    mean over many rows, leaves none. A gradient scaler cures training's own backward pass and never sees this one.
    So the gradient of the loss at the network's outputs, which is taken in fp32, is scaled row by row before it goes
    back through the network: by the power of two that brings its largest entry to `LEVEL`. What arrives is divided
    by the same factor. In fp32 powers of two change no digit of it. Costs no more than the gradient without: the two
    parts are one backward pass. Nothing waits for the device.

    Of a loss without its outputs only a fixed factor can be taken, `UNTOLD`.

    Args:
        objective: the loss to maximize. A loss reads ``delta`` through the outputs alone.
        delta: the perturbation.
        keep_graph: whether the graph will be gone through again.

    Raises:
        ValueError: outputs in half precision.
    """
    if isinstance(objective, Objective):
        loss, outputs, apart = objective
        if outputs.element_size() < 4:
            raise ValueError(f"the outputs of an objective are float32, not {outputs.dtype}: cast them before the loss")
        (seed,) = torch.autograd.grad(loss.sum(), outputs, retain_graph=keep_graph)
        factor = _factor(seed, apart)
        seed = seed * factor
    else:
        outputs = objective.sum()
        factor = seed = torch.full_like(outputs, UNTOLD)
    (grad,) = torch.autograd.grad(outputs, delta, grad_outputs=seed, retain_graph=keep_graph)
    grad = grad.float() if grad.element_size() < 4 else grad
    return grad / factor.to(grad.dtype).reshape(-1, *[1] * (grad.dim() - 1))


def _factor(seed: Tensor, apart: bool) -> Tensor:
    """The power of two that brings the largest entry of each row of ``seed`` (B, ...) to `LEVEL`: (B, 1, ...)."""
    largest = seed.detach().abs().amax(tuple(range(1, seed.dim())), keepdim=True).float()
    if not apart:
        largest = largest.amax(0, keepdim=True).expand_as(largest)
    power = (largest.view(torch.int32) & EXPONENT).view(torch.float32)
    # Of zero, a subnormal number, infinity and NaN nothing can be made; and the factor itself has to be finite.
    usable = (power > 0) & power.isfinite()
    return (LEVEL / torch.where(usable, power, LEVEL).clamp(min=2.0**-100)).to(seed.dtype)


def count_zero_grad_rows(grad: Tensor, inputs: Inputs) -> Tensor:
    """Count rows without a gradient at ``inputs``: zero, not finite, or lost to underflow. On the device, int64 ().

    Padding does not count. In a sequence of embeddings every coordinate reaches the outputs through layer norm and
    attention, so that its gradient is zero by rounding alone: a row counts where more than half of them are. An image
    counts where all are, since max-pooling and ReLUs leave true zeros: a network that reads one corner of a picture
    has a sound gradient there and none elsewhere.
    """
    return (
        zero_grad(torch.where(inputs.mask, grad, 0.0))
        if inputs.low is not None
        else zero_grad(grad, inputs.mask, MOSTLY)
    )

"""Arithmetic and memory of one forward pass, read off the network itself without computing it.

The pass runs on torch's fake tensors, which have shapes, types and a device and no values: a model of any size is
measured on any machine. FLOPs are those of torch's counter; activations are what autograd keeps for the backward pass.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from contraverse.errors import UserError
from contraverse.models import AnyModel, TextModel
from contraverse.types import Method

_ROWS = (13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59, 61, 67, 71, 73, 79, 83, 89, 97, 101, 103, 107, 109, 113, 127)
"""Primes. A kept tensor belongs to the rows where the number of them divides its size, which no weight's does."""

# The CPU's kernel, which torch's table lacks: those of other devices are in it.
_ATTENTION = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: lambda query, key, value, *others, **named: (
        sdpa_flop_count(query, key, value)
    )
}


@dataclass(frozen=True)
class Forward:
    """One forward pass of a model, F, with what a method reads of it.

    ``flops``: of one row; a multiplication and an addition are two. ``kept``: bytes of activations that a row's
    backward pass needs. ``kept_once``: bytes that all rows share, such as weights cast to bf16. ``recomputed``: bytes
    of a row where layers are computed again in the backward pass (``train.gradient_checkpointing``), one layer's
    activations included; None where the model cannot. ``largest``: bytes of a row's largest activation, whose gradient
    the backward pass holds as well. ``length``: tokens, or pixels of a side.
    """

    flops: float
    kept: float
    kept_once: float
    recomputed: float | None
    largest: float
    length: int


def forward_of(model: AnyModel, method: Method, length: int, *, bf16: bool = False) -> Forward:
    """Measure one forward pass, with the gradient of its inputs and of all weights that are trained.

    Args:
        model: on the meta device, in training mode, with the method's heads; it is left on fake tensors.
        method: decides which outputs are read.
        length: tokens of a row, or pixels of an image's side.
        bf16: under autocast. That of the CPU: a GPU computes layer norms in fp32, and keeps some more.
    """
    with FakeTensorMode():
        _without_values(model)
        flops, kept, once, largest = _measured(model, method, length, bf16)
        recomputed = None
        layers = _layers(model)
        try:
            model.activation_checkpointing_enable()
        except UserError:
            pass
        else:
            _, inputs, _, _ = _measured(model, method, length, bf16)
            recomputed = inputs + (kept - inputs) / max(1, layers)
    return Forward(flops, kept, once, recomputed, largest, length)


def _measured(model: AnyModel, method: Method, length: int, bf16: bool) -> tuple[float, float, float, float]:
    """FLOPs and kept bytes of a row, bytes kept once, and those of a row's largest tensor."""
    taken = {size for weight in model.parameters() for size in weight.shape} | {length}
    rows = next(prime for prime in _ROWS if all(size % prime for size in taken))
    batch, delta = _batch(model, rows, length)
    counter = FlopCounterMode(display=False, custom_mapping=_ATTENTION)
    with counter, _keeping(model) as kept, torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        outputs = model(batch, delta=delta, want=_wanted(model, method))
    of_rows = [size for size in kept.values() if size % rows == 0]
    once = sum(kept.values()) - sum(of_rows)
    del outputs
    return counter.get_total_flops() / rows, sum(of_rows) / rows, once, max(of_rows, default=0) / rows


def _wanted(model: AnyModel, method: Method) -> tuple[str, ...]:
    """Outputs of a pass: the features, and heads over the vocabulary, but for that of a method which runs it on few
    places."""
    large = [name for name, spec in method.heads.items() if spec.kind in ("mlm", "ngrams") and method.name != "mlm"]
    return ("tokens" if isinstance(model, TextModel) else "h", *large)


def _batch(model: AnyModel, rows: int, length: int) -> tuple[dict[str, Tensor], Tensor]:
    """A batch of ``rows`` and a perturbation of it."""
    if isinstance(model, TextModel):
        ids = torch.zeros(rows, length, dtype=torch.long)
        width = model.embedding_shape[1]
        dtype = model.encoder.dtype
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}, torch.zeros(
            rows, length, width, dtype=dtype, requires_grad=True
        )
    pixels = torch.zeros(rows, len(model.mean), length, length)
    return {"pixel_values": pixels}, torch.zeros_like(pixels, requires_grad=True)


@contextmanager
def _keeping(model: nn.Module) -> Iterator[dict[int, int]]:
    """Bytes of each storage that autograd keeps inside, weights left out."""
    own = {_storage(value) for value in [*model.parameters(), *model.buffers()]}
    kept: dict[int, int] = {}
    held: list[Any] = []  # so that no storage's number is used twice

    def pack(value: Tensor) -> Tensor:
        if (number := _storage(value)) not in own:
            kept[number] = value.untyped_storage().nbytes()
            held.append(value.untyped_storage())
        return value.detach()

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda value: value):
        yield kept


def _storage(value: Tensor) -> int:
    return int(value.untyped_storage()._cdata)


def _without_values(model: nn.Module) -> None:
    """Put fake tensors of the CPU in place of the weights and buffers, which are of the meta device."""
    made: dict[int, Tensor] = {}  # tied weights stay tied
    for module in model.modules():
        for tensors in (module._parameters, module._buffers):
            for name, value in tensors.items():
                if value is None:
                    continue
                if id(value) not in made:
                    empty = torch.empty(value.shape, dtype=value.dtype)
                    of_weight = isinstance(value, nn.Parameter)
                    made[id(value)] = nn.Parameter(empty, value.requires_grad) if of_weight else empty
                tensors[name] = made[id(value)]  # type: ignore[assignment]


def _layers(model: AnyModel) -> int:
    """Number of equal blocks, the largest list of modules of one class."""
    lists = [part for part in model.encoder.modules() if isinstance(part, nn.ModuleList | nn.Sequential)]
    counts = [len(part) for part in lists if len(part) > 1 and len({type(block) for block in part}) == 1]
    return max(counts, default=1)

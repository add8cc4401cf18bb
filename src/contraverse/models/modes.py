"""Modes and layouts of modules."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import module as torch_module
from torch.nn.modules.batchnorm import _BatchNorm

HOOKS = ("_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks")


class Folding(nn.Module):
    """A block of a network that computes a convolution and its batch norm as one while it is attacked.

    ``folds``: set by `attacking` alone. Every other pass, in eval mode too, calls each layer by itself, so that hooks,
    pruning and others' tools see an ordinary network.
    """

    folds = False


def is_hooked(*modules: nn.Module) -> bool:
    """True where a hook is registered on one of ``modules``, or on every module."""
    if any(getattr(torch_module, f"_global{name}") for name in HOOKS):
        return True
    return any(getattr(part, name) for part in modules for name in HOOKS)


@contextmanager
def setting(parts: Iterable[Any], name: str, value: object) -> Iterator[None]:
    """Attribute ``name`` of each of ``parts`` at ``value`` inside; its own value again afterwards."""
    before = [(part, getattr(part, name)) for part in parts]
    for part, _ in before:
        setattr(part, name, value)
    try:
        yield
    finally:
        for part, own in before:
            setattr(part, name, own)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Eval mode inside; every module's own mode again afterwards, a layer frozen in eval mode included."""
    modes = modes_of(model)
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def modes_of(model: nn.Module) -> list[tuple[nn.Module, bool]]:
    """Every module of ``model`` with its mode, for `restored`."""
    return [(module, module.training) for module in model.modules()]


@contextmanager
def restored(modes: list[tuple[nn.Module, bool]]) -> Iterator[None]:
    """Modules in earlier modes inside, those of `modes_of`; in the present ones again afterwards."""
    before = [(module, module.training) for module, _ in modes]
    for module, training in modes:
        module.training = training
    try:
        yield
    finally:
        for module, training in before:
            module.training = training


@contextmanager
def without_autocast(model: nn.Module) -> Iterator[None]:
    """The model in the precision of its weights inside, whatever it is trained in; as before afterwards.

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


@contextmanager
def attacking(model: nn.Module) -> Iterator[None]:
    """Prepare for an attack: `evaluating`, and every `Folding` block computes batch norm within its convolution.

    Batch norm in eval mode is an affine map of each channel, so that values and gradients are the same but for
    rounding; a step of an attack takes less time. Layers with hooks are called as ever.
    """
    blocks = [block for block in model.modules() if isinstance(block, Folding)]
    with evaluating(model), setting(blocks, "folds", True):
        yield


@contextmanager
def keeping_statistics(model: nn.Module) -> Iterator[None]:
    """Leave the running statistics of batch norms in training mode as they are inside.

    They normalise by the statistics of the batch as before; the pass of a perturbed batch leaves no trace.
    """
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm) and module.training]
    with setting(norms, "track_running_stats", False):
        yield


@contextmanager
def moving_statistics_once(model: nn.Module, share: float, later: float) -> Iterator[None]:
    """Chunk of a batch inside: after all chunks, running statistics of batch norms have moved once.

    They then stand at ``(1 - momentum) * old + momentum * mean over chunks``, as after the whole batch, but for the
    variance between the chunks' means. A batch norm that averages over all batches (``momentum=None``) counts each
    chunk as one.

    Args:
        model: its batch norms in training mode.
        share: rows of this chunk, as a share of the batch.
        later: rows of the chunks after it, as a share of the batch.
    """
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm) and module.training]
    before = [norm.momentum for norm in norms]
    for norm in norms:
        if norm.momentum is not None:
            # Later chunks shrink a statistic by what they put in its place.
            norm.momentum = norm.momentum * share / (1 - norm.momentum * later)
    try:
        yield
    finally:
        for norm, momentum in zip(norms, before, strict=True):
            norm.momentum = momentum


def channels_last(module: nn.Module) -> nn.Module:
    """``module`` with the weights of its convolutions in channels-last layout, in place.

    Else each pass over channels-last images, and each backward pass, copies them into it.
    """
    for weight in module.parameters():
        # Of one pixel or one channel both layouts are the same, but for strides that synchronised gradients may miss.
        if weight.dim() == 4 and weight.shape[1] > 1 and weight.shape[2] * weight.shape[3] > 1:
            weight.data = weight.data.contiguous(memory_format=torch.channels_last)
    return module


def default_layout(module: nn.Module, state: dict[str, Tensor], prefix: str, local_metadata: dict[str, object]) -> None:
    """Put the weights of a state dict into torch's default layout, as a hook: safetensors takes no other."""
    for name, value in state.items():
        state[name] = value.contiguous()

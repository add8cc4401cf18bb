"""The layers of an encoder: fewer of them, drawn anew, or with a part of the first one's input cut off."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel

from contraverse.errors import UserError


def _stack(encoder: PreTrainedModel) -> nn.ModuleList:
    depth = encoder.config.num_hidden_layers
    for module in encoder.base_model.modules():
        if isinstance(module, nn.ModuleList) and len(module) == depth:
            return module
    raise UserError(
        f"cannot find the {depth} layers of a {type(encoder).__name__}",
        hint="keep_layers and reinit_layers need an encoder whose layers stand in one list (ALBERT's are shared)",
    )


def keep_layers(encoder: PreTrainedModel, count: int) -> None:
    """Drop all but the lower ``count`` layers (1 .. depth)."""
    stack = _stack(encoder)
    if not 1 <= count <= len(stack):
        raise UserError(f"keep_layers={count}, but the encoder has {len(stack)} layers", hint=f"use 1 to {len(stack)}")
    del stack[count:]
    encoder.config.num_hidden_layers = count
    if getattr(encoder.config, "layer_types", None):  # ModernBERT says of each layer what it attends to
        encoder.config.layer_types = encoder.config.layer_types[:count]


def reinit_layers(encoder: PreTrainedModel, count: int) -> None:
    """Draw the weights of the last ``count`` layers (0 .. depth) anew, as the architecture initialises them."""
    stack = _stack(encoder)
    if not 0 <= count <= len(stack):
        raise UserError(
            f"reinit_layers={count}, but the encoder has {len(stack)} layers", hint=f"use 0 to {len(stack)}"
        )
    std = getattr(encoder.config, "initializer_range", 0.02)
    for layer in list(stack)[len(stack) - count :]:
        for module in layer.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=std)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, nn.LayerNorm):
                module.reset_parameters()


@contextmanager
def cutting(encoder: PreTrainedModel, keep: Tensor | None) -> Iterator[None]:
    """Multiply the first layer's input in one pass, after position, type and layer norm; None changes nothing.

    Args:
        encoder: any whose layers stand in a list, ALBERT's groups of shared layers too.
        keep: broadcasts to (B, T, H).
    """
    if keep is None:
        yield
        return

    def cut(_layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        handle.remove()  # of layers that are shared it is the first run alone
        if args:
            return (args[0] * keep.to(args[0].dtype), *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": kwargs["hidden_states"] * keep.to(kwargs["hidden_states"].dtype)}

    handle = _first_layer(encoder).register_forward_pre_hook(cut, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


def _first_layer(encoder: PreTrainedModel) -> nn.Module:
    stacks = [module for module in encoder.base_model.modules() if isinstance(module, nn.ModuleList)]
    depth = encoder.config.num_hidden_layers
    if not stacks:
        raise UserError(f"cannot find the layers of a {type(encoder).__name__}")
    return next((stack for stack in stacks if len(stack) == depth), stacks[0])[0]

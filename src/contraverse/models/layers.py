"""Starting from a weaker point than the checkpoint: fewer layers, or layers drawn anew."""

from torch import nn
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

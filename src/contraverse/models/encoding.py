"""A text through its encoder: layers, one pass with or without logits, pooling, and sentence embeddings."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from contraverse.errors import UserError
from contraverse.functional import all_parts, my_share
from contraverse.models import finite
from contraverse.models.inputs import prompted, text_list
from contraverse.models.modes import evaluating
from contraverse.types import NOT_REQUESTED, Batch

if TYPE_CHECKING:
    from contraverse.models.text import TextModel

Pooling = Literal["cls", "last", "mean", "max", "mean-sqrt-len", "weighted-mean", "first-last", "last-two"]

LAYERS: dict[str, tuple[int, int]] = {"first-last": (1, -1), "last-two": (-2, -1)}
"""Layers of the poolings that read two: places in ``hidden_states``, where 0 is the output of the embeddings."""


def run_encoder(model: "TextModel", ids: Tensor, arguments: dict[str, Any], *, logits: bool) -> tuple[Any, Tensor]:
    """Run the encoder once: its outputs below the classifier, and logits (B, C) or `NOT_REQUESTED`.

    Args:
        model: owner of the encoder.
        ids: (B, T), which show where padding is.
        arguments: of the encoder's forward pass.
        logits: run the classifier, too.

    Raises:
        ValueError: logits of a sentence encoder.
    """
    if model.pooling in LAYERS:
        arguments["output_hidden_states"] = True
    if not logits:
        return model.encoder.base_model(**arguments), NOT_REQUESTED
    if model.labels is None:
        raise ValueError("a sentence encoder has no logits: load it with labels=[...]")
    if model.reads_last:
        out = model.encoder.base_model(**arguments)
        classify = token_classifier(model.encoder)
        assert classify is not None
        # As transformers finds it, so that a saved folder gives the same logits without contraverse.
        place = last_place(ids != model.encoder.config.get_text_config().pad_token_id)  # (B,)
        return out, classify(take(out.last_hidden_state, place))
    # Heads differ between architectures, and none returns the last hidden state: a hook keeps it.
    caught: list[Any] = []
    hook = model.encoder.base_model.register_forward_hook(lambda _module, _args, out: caught.append(out))
    try:
        result = model.encoder(**arguments)
    finally:
        hook.remove()
    return caught[0], result.logits


def token_classifier(encoder: nn.Module) -> nn.Linear | None:
    """The layer by which a decoder's classifier turns a token into logits; None where there is no such layer."""
    layers = (getattr(encoder, name, None) for name in ("score", "classifier"))
    return next((layer for layer in layers if isinstance(layer, nn.Linear)), None)


def check_pooling(name: str) -> None:
    """Refuse a pooling that does not exist.

    Raises:
        UserError: the name is none of `Pooling`.
    """
    if name not in get_args(Pooling):
        raise UserError(f"no pooling is called {name!r}", hint=f"known: {', '.join(get_args(Pooling))}")


def mean_pool(tokens: Tensor, mask: Tensor) -> Tensor:
    """The mean (B, H) of ``tokens`` (B, T, H) with weights ``mask`` (B, T): 1 on real tokens, 0 on padding."""
    weights = mask.unsqueeze(-1).to(tokens.dtype)  # (B, T, 1)
    return (tokens * weights).sum(1) / weights.sum(1).clamp(min=1)


def last_place(real: Tensor) -> Tensor:
    """Place (B,) of the last True of each row of ``real`` (B, T); 0 in a row without one."""
    places = torch.arange(real.shape[1], device=real.device)  # (T,)
    return (places * real).argmax(1)


def take(tokens: Tensor, places: Tensor) -> Tensor:
    """Rows (B, H) of ``tokens`` (B, T, H) at ``places`` (B,)."""
    return tokens.gather(1, places.view(-1, 1, 1).expand(-1, 1, tokens.shape[-1])).squeeze(1)


def pool(tokens: Tensor, mask: Tensor, pooling: Pooling, hidden: Sequence[Tensor] | None = None) -> Tensor:
    """A vector for each row, (B, H).

    Args:
        tokens: (B, T, H), last hidden states.
        mask: (B, T), 1 on real tokens.
        pooling: the first token (``"cls"``) or the last real one (``"last"``); the mean over real tokens (``"mean"``),
            of the mean of the first and the last layer (``"first-last"``, BERT-flow and BERT-whitening), or of the
            last two (``"last-two"``, ConSERT); the largest value in each dimension (``"max"``); the sum over the root
            of the number of tokens (``"mean-sqrt-len"``); the mean with weights 1, 2, ... (``"weighted-mean"``, SGPT).
        hidden: the output of the embeddings and of each layer, where ``pooling`` reads two layers (`LAYERS`).
    """
    if pooling == "cls":
        return tokens[:, 0]
    if pooling == "last":
        return take(tokens, last_place(mask.bool()))
    if pooling == "max":
        # A finite floor: a row without tokens pools to something that is no infinity.
        return tokens.masked_fill(~mask.bool().unsqueeze(-1), torch.finfo(tokens.dtype).min).amax(1)
    if pooling == "mean-sqrt-len":
        weights = mask.unsqueeze(-1).to(tokens.dtype)  # (B, T, 1)
        return (tokens * weights).sum(1) / weights.sum(1).clamp(min=1).sqrt()
    if pooling == "weighted-mean":
        # Counted from the first place on: padding is on the right.
        return mean_pool(tokens, mask * torch.arange(1, mask.shape[1] + 1, device=mask.device))
    if pooling in LAYERS:
        assert hidden is not None
        lower, upper = LAYERS[pooling]
        tokens = (hidden[lower] + hidden[upper]) / 2
    return mean_pool(tokens, mask)


@torch.no_grad()
def encode(model: "TextModel", sentences: Iterable[str], batch_size: int, prompt: str | None) -> np.ndarray:
    """See `TextModel.encode`."""
    name = model.default_prompt if prompt is None else prompt
    ids = _tokenize(model, prompted(text_list(sentences), model.prompts, name))
    if not ids:
        return np.empty((0, 0), dtype=np.float32)
    order, parts = sorted(range(len(ids)), key=lambda i: len(ids[i])), []
    with evaluating(model):
        for chosen in my_share([order[i : i + batch_size] for i in range(0, len(order), batch_size)]):
            batch = model.tokenizer.pad({"input_ids": [ids[i] for i in chosen]}, return_tensors="pt")
            z = _embed(model, {k: v.to(model.device) for k, v in batch.items()})  # (B, H)
            parts.append((chosen, z.float().cpu().numpy()))
    places, vectors = zip(*all_parts(parts), strict=True)
    return finite.checked(np.concatenate(vectors)[np.argsort(np.concatenate(places))])


def _embed(model: "TextModel", batch: Batch) -> Tensor:
    """Embeddings (B, H) of a batch, after the tail and the postprocessing."""
    outputs = model(batch, want=(model.embedding,))
    if model.embedding == "ngrams":
        embeddings = mean_pool(outputs.heads["ngrams"], batch["attention_mask"])
    else:
        embeddings = getattr(outputs, model.embedding)
    for after in (model.tail, model.postprocess):
        embeddings = embeddings if after is None else after(embeddings)
    return embeddings


def _tokenize(model: "TextModel", sentences: Sequence[str]) -> list[list[int]]:
    if not sentences:  # which the tokenizer refuses
        return []
    encoded = model.tokenizer(list(sentences), truncation=True, max_length=model.max_seq_length)
    ids: list[list[int]] = encoded["input_ids"]
    return ids


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

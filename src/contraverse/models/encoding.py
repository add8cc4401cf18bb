"""Hidden states and sentence embeddings of texts."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from contraverse.functional import all_parts, my_share
from contraverse.models import finite
from contraverse.models.checkup import token_classifier
from contraverse.models.inputs import text_list
from contraverse.models.modes import evaluating
from contraverse.models.pooling import LAYERS, last_place, mean_pool, take
from contraverse.models.tokens import prompted
from contraverse.types import NOT_REQUESTED, Batch

if TYPE_CHECKING:
    from contraverse.models.text import TextModel


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

"""Open files of any kind as a `TextModel`, and check it on a tiny batch."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from contraverse.errors import UserError
from contraverse.models import loading
from contraverse.models.checkup import check_model
from contraverse.models.layers import keep_layers as keep
from contraverse.models.layers import reinit_layers as reinit
from contraverse.models.normalizing import MARK, NOT_HARDENED, UNICODE, is_hardened
from contraverse.models.pooling import Pooling, check_pooling

if TYPE_CHECKING:
    from contraverse.models.text import Embedding, TextModel

USUAL = 128
"""Tokens that a text is cut to unless told, or fewer where the encoder has no more positions."""


def open_model(
    kind: "type[TextModel]",
    origin: loading.Origin,
    labels: Sequence[str] | None = None,
    *,
    pooling: Pooling | None = None,
    embedding: "Embedding" = "h",
    max_length: int | None = None,
    keep_layers: int | None = None,
    reinit_layers: int = 0,
) -> "TextModel":
    """As `TextModel.from_pretrained`, with ``notes`` on the model in the place of warnings."""
    check_pooling(pooling or "cls")
    config = loading.load_config(origin)
    tokenizer = loading.load_tokenizer(origin)
    before = loading.classes_of(config) if labels is not None else None
    if labels is None or before not in (None, list(labels)):
        encoder, drawn = loading.load_encoder(origin, config)
    else:
        encoder, drawn = loading.load_classifier(origin, config, labels)
    if keep_layers is not None:
        keep(encoder, keep_layers)
    if reinit_layers:
        reinit(encoder, reinit_layers)
    notes = []
    if labels is not None and before is not None and before != list(labels):
        encoder = loading.renew_classifier(encoder, labels, origin)
        notes.append(f"{origin.name} tells {listed(before)} apart: the classifier is drawn anew")
    if pooling == "last-two" and encoder.config.num_hidden_layers < 2:
        raise UserError("pooling last-two needs two layers, and this encoder has one", hint="use mean, or keep two")
    text = encoder.config.get_text_config()
    if getattr(text, "pad_token_id", None) is None:
        text.pad_token_id = tokenizer.pad_token_id
    caching, text.use_cache = getattr(text, "use_cache", None), False
    model = kind(
        encoder, tokenizer, labels=labels, pooling=pooling or "cls", embedding=embedding, max_length=max_length or USUAL
    )
    model.drawn = drawn
    model.trust_remote_code = origin.trust_remote_code
    if not check_model(model, origin.name, choose_pooling=pooling is None):
        text.use_cache = caching  # a decoder never needs its keys and values again
    positions = model.positions
    if positions is not None and model.max_length > positions:
        if max_length is not None:
            notes.append(f"{origin.name} has {positions} positions: texts are cut there, not at {max_length} tokens")
        model.max_length = positions
    if getattr(config, MARK, None) == UNICODE and not is_hardened(tokenizer):
        notes.append(NOT_HARDENED)
    model.notes = notes
    return model


def listed(names: Sequence[str]) -> str:
    """The first few of ``names``, and how many more there are."""
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")

"""Open files of any kind as a `TextModel`, and check it on a tiny batch of two texts of two lengths.

The check: word embeddings give what their ids give, padding changes nothing, two texts differ, and tokenizer, embedding
table and positions fit together. A model that fails would train, be attacked and be measured on something else than its
texts.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from contraverse.errors import UserError
from contraverse.models import adapters, loading
from contraverse.models.encoding import LAYERS, Pooling, check_pooling, pool, token_classifier
from contraverse.models.encoding import keep_layers as keep
from contraverse.models.encoding import reinit_layers as reinit
from contraverse.models.modes import evaluating, without_autocast
from contraverse.models.normalizing import MARK, NOT_HARDENED, UNICODE, is_hardened
from contraverse.types import Outputs

if TYPE_CHECKING:
    from contraverse.models.text import Embedding, TextModel

USUAL = 128
"""Default number of tokens that a text is cut to; fewer where the encoder has fewer positions."""
_LONG, _SHORT = 6, 3
# Largest difference between numbers that should be the same, and that are, as parts of the largest of them.
_ALIKE = {torch.float32: 1e-3, torch.bfloat16: 5e-2, torch.float16: 1e-2}
_EQUAL = {torch.float32: 1e-6, torch.bfloat16: 1e-3, torch.float16: 1e-3}
_HINT = "training on adversarial views needs an encoder that takes inputs_embeds and an attention mask"


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
    peft: str | Mapping[str, Any] | None = None,
) -> "TextModel":
    """As `TextModel.from_pretrained`, with ``notes`` on the model in the place of warnings."""
    check_pooling(pooling or "cls")
    merged = loading.is_adapter(Path(origin.path))
    if peft is not None:
        adapters.check_settings(peft)
        if keep_layers is not None or reinit_layers or merged:
            what = "adapters belong to a network that can be loaded, and here its weights or layers are changed before"
            hint = "start from a merged model (model/ of a run), without keep_layers and reinit_layers"
            raise UserError(what, where=adapters.WHERE, hint=hint)
    config = loading.load_config(origin)
    tokenizer = loading.load_tokenizer(origin)
    before = loading.classes_of(config) if labels is not None else None
    if labels is None or merged or before not in (None, list(labels)):
        encoder, drawn = loading.load_encoder(origin, config)
    else:
        encoder, drawn = loading.load_classifier(origin, config, labels)
    if merged:
        adapters.merge_from(Path(origin.path), encoder)
    if keep_layers is not None:
        keep(encoder, keep_layers)
    if reinit_layers:
        reinit(encoder, reinit_layers)
    notes = []
    if labels is not None and (merged or before not in (None, list(labels))):
        encoder = loading.renew_classifier(encoder, labels, origin)
        why = f"tells {listed(before)} apart" if before is not None else "has adapters, without names of classes"
        notes.append(f"{origin.name} {why}: the classifier is drawn anew")
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
    if peft is not None:
        adapters.add_adapter(model, peft, origin)
    return model


def listed(names: Sequence[str]) -> str:
    """The first few of ``names``, and how many more there are."""
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


def check_model(model: "TextModel", where: str, *, choose_pooling: bool) -> bool:
    """Run ``model`` on a tiny batch, and detect how its classifier and its pooling read a text.

    Sets ``model.reads_last``, and with ``choose_pooling`` the pooling of a decoder. Modes and random generators stay
    as they are.

    Returns:
        True for a decoder: a token's state holds nothing of those after it.

    Raises:
        UserError: the model cannot be used; says why.
    """
    network, dtype = type(model.encoder).__name__, model.encoder.dtype
    try:
        width = model.embedding_shape[1]
    except (NotImplementedError, AttributeError, TypeError) as error:
        raise _unusable(f"a {network} has no table of word embeddings", where, error) from error
    batch = _probe(model, where)
    alone = {name: value[1:, :_SHORT] for name, value in batch.items()}
    zero = torch.zeros(2, _LONG, width, dtype=dtype)
    with evaluating(model), without_autocast(model), torch.no_grad(), torch.random.fork_rng(devices=[]):

        def passes() -> list[Outputs | Exception]:
            return [_attempt(model, batch), _attempt(model, batch, zero), _attempt(model, alone)]

        plain, embedded, short = passes()
        if isinstance(plain, Exception) or isinstance(short, Exception):
            raise _unusable(
                f"a {network} cannot read two texts", where, plain if isinstance(plain, Exception) else short
            )
        if model.labels is not None and not _reads_alike(plain, embedded, short):
            # A decoder's own classifier finds the last token by its id, and takes the last place where it gets none.
            expected = torch.cat([_logits(plain)[:1], _logits(short)])
            model.reads_last = token_classifier(model.encoder) is not None
            if model.reads_last:  # a configuration of another padding token would have padding read as text
                model.encoder.config.get_text_config().pad_token_id = model.tokenizer.pad_token_id
            again = passes() if model.reads_last else []
            if again and _reads_alike(*again) and _close(_logits(again[0]), expected, _ALIKE[dtype]):
                plain, embedded, short = again
    if isinstance(embedded, Exception):
        raise _unusable(f"a {network} takes no word embeddings", where, embedded)
    assert isinstance(plain, Outputs) and isinstance(short, Outputs)  # noqa: PT018
    return _compare(model, batch["attention_mask"].bool(), plain, embedded, short, where, choose_pooling)


def positions_of(encoder: Any) -> int | None:
    """Number of positions in the encoder's position table; None without a table."""
    tables = [
        # Places up to the padding's own stand for no token (RoBERTa).
        module.num_embeddings - (0 if module.padding_idx is None else module.padding_idx + 1)
        for name, module in encoder.base_model.named_modules()
        if isinstance(module, nn.Embedding) and _is_position_table(name, module, encoder.config)
    ]
    if not tables:
        return None
    limit = getattr(encoder.config, "max_position_embeddings", None)
    return min([*tables, *([limit] if isinstance(limit, int) and limit > 0 else [])])


def _is_position_table(name: str, module: nn.Embedding, config: Any) -> bool:
    last = name.rpartition(".")[2]
    longest = getattr(config, "max_position_embeddings", None)
    named = last in ("wpe", "position_embeddings", "embed_positions", "positions_embed", "position_embedding")
    return named and isinstance(longest, int) and module.num_embeddings >= longest


def _probe(model: "TextModel", where: str) -> dict[str, Tensor]:
    """Two rows of ids that begin alike, of 6 and 3 tokens."""
    tokenizer, rows = model.tokenizer, model.embedding_shape[0]
    top = max(tokenizer.get_vocab().values())
    if top >= rows:
        raise UserError(
            f"the tokenizer has an id {top}, and the table of embeddings has {rows} rows",
            where=where,
            hint="the tokenizer is another model's, or a token was added and the table was not enlarged",
        )
    special = set(tokenizer.all_special_ids)
    words = [i for i in range(top + 1) if i not in special]
    if len(words) < _LONG:
        what = f"the tokenizer knows {len(words)} words, and the check of a model needs {_LONG}"
        raise UserError(what, where=where, hint="give a complete tokenizer")
    plain = [words[len(words) * i // _LONG] for i in range(_LONG)]
    first = next((i for i in (tokenizer.cls_token_id, tokenizer.bos_token_id) if i is not None), plain[0])
    end = next((i for i in (tokenizer.sep_token_id, tokenizer.eos_token_id) if i is not None), plain[-1])
    # The end token may be the padding's id as well, which transformers' own classifiers then take for padding.
    end = plain[-1] if end == tokenizer.pad_token_id else end
    long, short = [first, *plain[1:-1], end], [first, plain[-1], end]
    padded = short + [tokenizer.pad_token_id] * (_LONG - _SHORT)
    mask = [[1] * _LONG, [1] * _SHORT + [0] * (_LONG - _SHORT)]
    return {"input_ids": torch.tensor([long, padded]), "attention_mask": torch.tensor(mask)}


def _attempt(model: "TextModel", batch: dict[str, Tensor], delta: Tensor | None = None) -> Outputs | Exception:
    """Outputs of one pass, or the error of transformers: networks raise many kinds for inputs they refuse."""
    want = ("tokens", "h", "logits") if model.labels is not None else ("tokens", "h")
    try:
        out = model(batch, delta=delta, want=want)
    except MemoryError:
        raise
    except Exception as error:
        return error
    assert isinstance(out, Outputs)
    return out


def _reads_alike(plain: Outputs | Exception, embedded: Outputs | Exception, short: Outputs | Exception) -> bool:
    """Logits are the same by ids and by embeddings, padded and alone."""
    if isinstance(plain, Exception) or isinstance(embedded, Exception) or isinstance(short, Exception):
        return False
    tolerance = _ALIKE[_logits(plain).dtype]
    padded = _close(_logits(plain)[1:], _logits(short), tolerance)
    return padded and _close(_logits(plain), _logits(embedded), tolerance)


def _compare(
    model: "TextModel",
    real: Tensor,
    plain: Outputs,
    embedded: Outputs,
    short: Outputs,
    where: str,
    choose_pooling: bool,
) -> bool:
    network, dtype = type(model.encoder).__name__, model.encoder.dtype
    tokens, others, alone = (out.tokens for out in (plain, embedded, short))
    if not tokens[real].isfinite().all():
        raise UserError(
            "the weights give NaN or infinite numbers", where=where, hint="train it again with a lower learning rate"
        )
    if not _close(tokens[real], others[real], _ALIKE[dtype]):
        raise _unusable(f"a {network} reads word embeddings otherwise than their ids", where)
    if not _close(tokens[1, :_SHORT], alone[0], _ALIKE[dtype]):
        raise _unusable(f"a {network} reads a text otherwise when it is padded", where)
    if model.labels is not None and not _reads_alike(plain, embedded, short):
        raise _unusable(f"the classifier of a {network} reads the padding in the place of the last token", where)
    # The two texts begin alike: where the first token's state is the same, it has not seen the others.
    decoder = _close(tokens[0, 0], tokens[1, 0], _EQUAL[dtype])
    if decoder:
        if choose_pooling:
            model.pooling = "last"
        elif model.pooling == "cls":
            raise UserError(
                f"pooling cls takes the first token, and in a {network} that has seen no other",
                where=where,
                hint="take pooling last: --set model.pooling=last",
            )
    h = plain.h if model.pooling in LAYERS else pool(tokens, real.long(), model.pooling)
    if _close(h[0], h[1], _EQUAL[dtype]):
        raise UserError(
            f"a {network} gives every text the same vector",
            where=where,
            hint="check that these are the weights of this model",
        )
    return decoder


def _logits(out: Outputs | Exception) -> Tensor:
    assert isinstance(out, Outputs)
    return out.logits


def _close(first: Tensor, second: Tensor, tolerance: float) -> bool:
    first, second = first.float(), second.float()
    return bool((first - second).abs().max() <= tolerance * max(first.abs().max(), second.abs().max()))


def _unusable(what: str, where: str, reason: object = None) -> UserError:
    first = (str(reason or "").strip().splitlines() or [""])[0]
    return UserError(what + (f": {first}" if first else ""), where=where, hint=_HINT)

"""Builders of tiny random encoders, their tokenizer, and small padded batches."""

from typing import Any

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import AutoConfig, PretrainedConfig, PreTrainedTokenizerFast

from contraverse.data import TextData

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = """the a of to and in is was for on that with as it by at from his her they be this an are which not have or had
but one who were all their there been has would more if no out so what up said its about than into them can only other
new some could time these two may then do first any my now such like our over man me even most made after also did many
before must through back years where much your way well down should because each just those people how too little state
good very make world still own see men work long get here""".split()
VOCABULARY = SPECIAL + WORDS
LABELS = ("red", "green", "blue")

_SIZE = {
    "vocab_size": len(VOCABULARY),
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 66,
    "pad_token_id": 0,
    "initializer_range": 0.2,
}
# What an architecture names otherwise, or needs besides. The wide initialisation above makes gradients large enough
# to tell one row from another.
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "bert": {},
    "roberta": {},
    "albert": {"embedding_size": 16},
    "distilbert": {
        "dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 64,
        "hidden_size": None, "num_hidden_layers": None, "num_attention_heads": None, "intermediate_size": None,
    },
    "electra": {"embedding_size": 16},
    "deberta-v2": {
        "relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_biased_input": False,
        "max_relative_positions": 16, "norm_rel_ebd": "layer_norm", "share_att_key": True,
    },
    "mpnet": {},
    "modernbert": {
        "cls_token_id": 2, "sep_token_id": 3, "bos_token_id": 2, "eos_token_id": 3,
        "initializer_cutoff_factor": 2.0,
    },
}  # fmt: skip
DROPOUTS = {
    "distilbert": ("dropout", "attention_dropout", "seq_classif_dropout"),
    "albert": ("hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout_prob"),
    "deberta-v2": ("hidden_dropout_prob", "attention_probs_dropout_prob", "pooler_dropout"),
    "modernbert": ("embedding_dropout", "attention_dropout", "mlp_dropout", "classifier_dropout"),
    "electra": ("hidden_dropout_prob", "attention_probs_dropout_prob", "summary_last_dropout"),
}


def tiny_config(architecture: str, dropout: float, **settings: Any) -> PretrainedConfig:
    """A configuration of two layers and width 32; ``settings`` override it."""
    names = DROPOUTS.get(architecture, ("hidden_dropout_prob", "attention_probs_dropout_prob"))
    merged = {**_SIZE, **ARCHITECTURES[architecture], **dict.fromkeys(names, dropout), **settings}
    return AutoConfig.for_model(architecture, **{name: value for name, value in merged.items() if value is not None})


def tiny_tokenizer(type_ids: bool) -> PreTrainedTokenizerFast:
    """WordPiece over a hundred words: ``[CLS] a [SEP]``, ``[CLS] a [SEP] b [SEP]``."""
    tokenizer = Tokenizer(models.WordPiece({word: i for i, word in enumerate(VOCABULARY)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_input_names=["input_ids", "attention_mask", *(["token_type_ids"] if type_ids else [])],
        **{f"{name}_token": f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep", "mask")},
    )


def random_batch(rows: int = 4, tokens: int = 9, *, labels: int = len(LABELS), seed: int = 0) -> dict[str, Any]:
    """Rows of different lengths, the first the longest; all but it are padded on the right."""
    random = torch.Generator().manual_seed(seed)
    ids = torch.zeros(rows, tokens, dtype=torch.long)
    for i in range(rows):
        length = tokens - i % (tokens - 4)
        ids[i, :length] = torch.randint(len(SPECIAL), len(VOCABULARY), (length,), generator=random)
        ids[i, 0], ids[i, length - 1] = 2, 3
    return {
        "input_ids": ids,
        "attention_mask": (ids != 0).long(),
        "labels": torch.randint(labels, (rows,), generator=random),
        "index": torch.arange(rows),
    }


def with_pairs(batch: dict[str, Any], seed: int = 100) -> dict[str, Any]:
    """``batch`` with batches of the same number of rows under ``positive`` and ``negative``."""
    rows = len(batch["input_ids"])
    pair = {name: random_batch(rows, 8 - i, seed=seed + i) for i, name in enumerate(("positive", "negative"))}
    return {**batch, **{name: {k: b[k] for k in ("input_ids", "attention_mask")} for name, b in pair.items()}}


def take(batch: dict[str, Any], rows: Any) -> dict[str, Any]:
    """Some rows of a batch, nested batches included, with the padding as it was."""
    return {name: take(value, rows) if isinstance(value, dict) else value[rows] for name, value in batch.items()}


def sentences(count: int, seed: int = 0) -> list[str]:
    """Sentences of 2 to 12 words of the vocabulary, no two alike in length beside each other."""
    random = torch.Generator().manual_seed(seed)
    lengths = [2 + i * 7 % 11 for i in range(count)]
    return [" ".join(WORDS[i] for i in torch.randint(len(WORDS), (n,), generator=random).tolist()) for n in lengths]


def rows(count: int = 12, *, texts: int = 1) -> TextData:
    """Labelled sentences, whose first word tells the class; with three texts a row, unlabelled triplets."""
    columns = [sentences(count, seed) for seed in range(texts)]
    if texts == 3:
        return TextData.from_rows(list(zip(*columns, strict=True)))
    labels = [sum(row[0] > letter for letter in "jt") for row in columns[0]]
    return TextData.from_rows(columns[0], labels, LABELS)

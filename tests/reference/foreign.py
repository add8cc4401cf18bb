"""Builders of foreign folders: any architecture of transformers in miniature, sentence-transformers', hostile ones."""

import inspect
import json
from pathlib import Path
from typing import Any

import torch
from reference.tiny import VOCABULARY, tiny_tokenizer
from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification, PretrainedConfig

SIZES = {
    "vocab_size": len(VOCABULARY) + 1, "max_position_embeddings": 66, "n_positions": 66, "n_ctx": 66,
    **dict.fromkeys(("hidden_size", "n_embd", "dim", "d_model", "word_embed_proj_dim"), 32),
    **dict.fromkeys(("moe_intermediate_size", "shared_expert_intermediate_size", "expert_ffn_hidden_size"), 32),
    **dict.fromkeys(("intermediate_size", "n_inner", "hidden_dim", "d_ff", "ffn_dim"), 64),
    **dict.fromkeys(("encoder_ffn_dim", "decoder_ffn_dim"), 64),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "n_layers", "num_layers", "num_decoder_layers"), 2),
    **dict.fromkeys(("encoder_layers", "decoder_layers", "num_experts_per_tok"), 2),
    **dict.fromkeys(("num_attention_heads", "num_key_value_heads", "n_head", "n_heads", "num_heads"), 2),
    **dict.fromkeys(("encoder_attention_heads", "decoder_attention_heads"), 2),
    **dict.fromkeys(("head_dim", "embedding_size", "d_kv"), 16),
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts"), 4),
    "pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3, "decoder_start_token_id": 0, "initializer_range": 0.2,
}  # fmt: skip
"""Of all the names that architectures have for them."""


def small_config(architecture: str, **settings: Any) -> PretrainedConfig:
    """A configuration of ``architecture``, as small as its own names of `SIZES` allow."""
    kind = type(AutoConfig.for_model(architecture))
    known = set(inspect.signature(kind.__init__).parameters)
    known |= {name for base in kind.__mro__ for name in getattr(base, "__annotations__", {})}
    other = kind.attribute_map
    chosen = {name: value for name, value in SIZES.items() if name in known or name in other}
    chosen = {name: value for name, value in chosen.items() if other.get(name) not in chosen}
    return AutoConfig.for_model(architecture, **{**chosen, **settings})


def foreign_folder(folder: Path, architecture: str, classes: int | None = None, **settings: Any) -> Path:
    """A plain transformers folder of random weights: an encoder, or a classifier with LABEL_0, LABEL_1, ..."""
    config = small_config(architecture, **settings)
    kind = AutoModel if classes is None else AutoModelForSequenceClassification
    if classes is not None:
        config.num_labels = classes
    with torch.device("meta"):
        weights = sum(p.numel() for p in kind.from_config(config).parameters())
    if weights > 30e6:
        raise ValueError(f"no {architecture} is as small: {weights / 1e6:.0f} million weights")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = kind.from_config(config)
        model.float().save_pretrained(folder)
    tiny_tokenizer(type_ids=False).save_pretrained(folder)
    return folder


def edit_json(path: Path, **changes: Any) -> None:
    """Change keys of the object in a JSON file."""
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def evil_folder(folder: Path, marker: Path) -> Path:
    """A folder that asks for code of its own, which makes ``marker``."""
    folder.mkdir()
    code = f"open({str(marker)!r}, 'w').close()\nfrom transformers import BertConfig\nclass Evil(BertConfig): pass\n"
    (folder / "evilcode.py").write_text(code)
    mapped = dict.fromkeys(("AutoConfig", "AutoModel", "AutoModelForSequenceClassification"), "evilcode.Evil")
    (folder / "config.json").write_text(json.dumps({"model_type": "evil", "auto_map": mapped}))
    return folder

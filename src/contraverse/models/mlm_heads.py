"""A reconstruction head that starts as the masked-language head of the checkpoint that its encoder was loaded from."""

import json
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.utils import cached_file

from contraverse.models.heads import ReconstructionHead

NAMES = (
    ("cls.predictions.transform.dense", "cls.predictions.transform.LayerNorm", "cls.predictions"),  # BERT, DeBERTa
    ("lm_head.dense", "lm_head.layer_norm", "lm_head"),  # RoBERTa, XLM-R, MPNet
    ("predictions.dense", "predictions.LayerNorm", "predictions"),  # ALBERT
    ("vocab_transform", "vocab_layer_norm", "vocab_projector"),  # DistilBERT
    ("generator_predictions.dense", "generator_predictions.LayerNorm", "generator_lm_head"),  # ELECTRA's generator
    ("head.dense", "head.norm", "decoder"),  # ModernBERT
)
"""Names in checkpoints of the dense layer, the layer norm, and the holder of the decoder's bias."""
OLD = {"weight": "gamma", "bias": "beta"}
"""Names of the two parts of a layer norm in checkpoints converted from TensorFlow."""


def start_from_checkpoint(head: ReconstructionHead, encoder: PreTrainedModel) -> bool:
    """Give ``head`` the weights of the checkpoint's own masked-language head, and tell whether there was one.

    The head stays as it was drawn where the checkpoint has none (sentence encoders, generators of another shape), where
    its decoder is not the word embeddings, and where the files cannot be reached any more. Nothing is downloaded. The
    epsilon of its layer norm stays torch's, which is no part of a checkpoint.
    """
    if not getattr(encoder.config, "tie_word_embeddings", True):
        return False
    for dense, norm, decoder in NAMES:
        wanted = {"dense.weight": [f"{dense}.weight"], "dense.bias": [f"{dense}.bias"]}
        for part, old in OLD.items():
            wanted[f"norm.{part}"] = [f"{norm}.{part}", f"{norm}.{old}"]
        wanted["bias"] = [f"{decoder}.bias", f"{decoder}.decoder.bias"]
        tensors = dict(_tensors(encoder, {name for names in wanted.values() for name in names}))
        state = {mine: tensors[name] for mine, names in wanted.items() for name in names if name in tensors}
        state.setdefault("dense.bias", torch.zeros_like(head.dense.bias))  # ModernBERT's layers have no biases
        state.setdefault("norm.bias", torch.zeros_like(head.norm.bias))
        own = head.state_dict()
        if state.keys() == own.keys() and all(state[name].shape == own[name].shape for name in own):
            head.load_state_dict(state)
            return True
    return False


def _tensors(encoder: PreTrainedModel, names: set[str]) -> Iterator[tuple[str, Tensor]]:
    """Tensors of the checkpoint with one of the ``names``."""
    for path in _files(encoder):
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt") as file:
                for name in names & set(file.keys()):
                    yield name, file.get_tensor(name)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
            yield from ((name, state[name]) for name in names & state.keys())


def _files(encoder: PreTrainedModel) -> list[Path]:
    """The checkpoint's files of weights, in its folder or in the cache of the Hub."""

    source = encoder.name_or_path

    def find(name: str) -> Path | None:
        revision = getattr(encoder.config, "_commit_hash", None)  # set by `loading.load_config`
        try:
            file = cached_file(source or "", name, revision=revision, local_files_only=True)
        except OSError:
            return None
        return None if file is None else Path(file)

    if not source:
        return []
    for name in ("model.safetensors", "pytorch_model.bin"):
        if path := find(name):
            return [path]
    index = find("model.safetensors.index.json")
    if index is None:
        return []
    parts = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    return [path for part in parts if (path := find(part))]


def grown(head: nn.Module, encoder: PreTrainedModel) -> nn.Module:
    """``head`` as it starts on ``encoder``: a reconstruction head as the checkpoint's own where there is one."""
    if isinstance(head, ReconstructionHead):
        start_from_checkpoint(head, encoder)
    return head

"""A reconstruction head starts as the checkpoint's own masked-language head, and at random where there is none."""

from pathlib import Path
from typing import Any

import pytest
import torch
from reference.tiny import tiny_config, tiny_tokenizer
from safetensors.torch import load_file, save_file
from transformers import AutoModelForMaskedLM, PreTrainedModel

from contraverse.models import TextModel
from contraverse.types import HeadSpec

HEADS = {"reconstruction": HeadSpec(kind="mlm")}
ARCHITECTURES = ["bert", "roberta", "albert", "distilbert", "deberta-v2", "mpnet", "modernbert"]


def checkpoint(folder: Path, architecture: str = "bert", **settings: Any) -> PreTrainedModel:
    """A masked-language model, saved, its layer norms and biases not as they are initialised."""
    torch.manual_seed(0)
    model = AutoModelForMaskedLM.from_config(tiny_config(architecture, 0.0, **settings)).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "embeddings" not in name:
                parameter.add_(0.05 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    tiny_tokenizer(architecture in ("bert", "albert", "deberta-v2")).save_pretrained(folder)
    return model


def logits(model: TextModel, batch: dict[str, Any]) -> torch.Tensor:
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    with torch.no_grad():
        return model.eval()(inputs, want=("reconstruction",)).heads["reconstruction"]


def loaded(folder: Path) -> TextModel:
    model = TextModel.from_pretrained(folder, labels=("a", "b"))
    model.add_heads(HEADS)
    return model


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_it_says_what_the_checkpoint_says(tmp_path: Path, batch: dict[str, Any], architecture: str) -> None:
    whole = checkpoint(tmp_path, architecture)
    with torch.no_grad():
        expected = whole(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    # ALBERT's GELU is the approximation by tanh, and layer norms have another epsilon.
    torch.testing.assert_close(logits(loaded(tmp_path), batch), expected, rtol=1e-3, atol=1e-3)


def test_names_of_converted_checkpoints(tmp_path: Path, batch: dict[str, Any]) -> None:
    """bert-base-uncased has gamma and beta."""
    checkpoint(tmp_path)
    expected = logits(loaded(tmp_path), batch)
    tensors = load_file(tmp_path / "model.safetensors")
    norm = "cls.predictions.transform.LayerNorm"
    for new, old in (("weight", "gamma"), ("bias", "beta")):
        tensors[f"{norm}.{old}"] = tensors.pop(f"{norm}.{new}")
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    torch.testing.assert_close(logits(loaded(tmp_path), batch), expected)


@pytest.mark.parametrize("sharded", [True, False])
def test_shards_and_pickles(tmp_path: Path, batch: dict[str, Any], sharded: bool) -> None:
    whole = checkpoint(tmp_path)
    expected = logits(loaded(tmp_path), batch)
    if sharded:
        whole.save_pretrained(tmp_path, max_shard_size="20KB")
        assert (tmp_path / "model.safetensors.index.json").is_file()
        (tmp_path / "model.safetensors").unlink(missing_ok=True)
    else:
        torch.save(whole.state_dict(), tmp_path / "pytorch_model.bin")
        (tmp_path / "model.safetensors").unlink()
    torch.testing.assert_close(logits(loaded(tmp_path), batch), expected)


def test_without_one_it_is_drawn(tmp_path: Path, tiny_model: Any, batch: dict[str, Any]) -> None:
    """Of an encoder alone, as sentence encoders are, and of a decoder that is not the word embeddings."""
    head = tiny_model(heads=HEADS).heads["reconstruction"]
    assert head.norm.weight.eq(1).all()
    assert head.bias.eq(0).all()
    checkpoint(tmp_path, tie_word_embeddings=False)
    assert loaded(tmp_path).heads["reconstruction"].bias.eq(0).all()


def test_a_saved_model_keeps_what_it_learnt(tmp_path: Path, batch: dict[str, Any]) -> None:
    checkpoint(tmp_path / "base")
    model = loaded(tmp_path / "base")
    with torch.no_grad():
        model.heads["reconstruction"].bias.add_(1)
    again = TextModel.load(model.save(tmp_path / "trained"))
    torch.testing.assert_close(logits(again, batch), logits(model, batch))

"""The encoder's own pooler as z: what it gives, where there is none, and what is saved and exported."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer
from transformers import AutoModel

from contraverse.errors import UserError
from contraverse.methods import METHODS
from contraverse.models import TextModel
from contraverse.types import HeadSpec

Make = Callable[..., TextModel]
POOLER = {"z": HeadSpec(kind="pooler")}
SENTENCES = ["the state of the world", "good people", "work long", "many years over there"]


@pytest.mark.parametrize("name", ["scal", "cl", "simcse", "simcse-sup", "uscal"])
def test_contrastive_methods_take_it(name: str) -> None:
    assert METHODS[name](projection="pooler").heads == POOLER
    assert METHODS[name]().heads == {"z": HeadSpec()}
    with pytest.raises(ValueError, match="projection"):
        METHODS[name](projection="other")


@pytest.mark.parametrize("architecture", ["bert", "albert"])
@pytest.mark.parametrize("pooling", ["cls", "mean"])
@torch.no_grad()
def test_z_is_what_the_encoders_pooler_gives(tiny_model: Make, batch: Any, architecture: str, pooling: Any) -> None:
    """With a classifier on top, which reads it too; it has no weights but the encoder's, trained with them."""
    plain = tiny_model(architecture, pooling=pooling)
    model = tiny_model(architecture, pooling=pooling, heads=POOLER)
    assert model.state_dict().keys() == plain.state_dict().keys()
    out = model.encoder.base_model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
    torch.testing.assert_close(model(batch, want=("z",)).z, out.pooler_output)
    with torch.enable_grad():
        model(batch, want=("z",)).z.sum().backward()
    assert all(p.grad is not None for name, p in model.named_parameters() if "pooler" in name)


@pytest.mark.parametrize(
    ("architecture", "labels"),
    [("distilbert", None), ("electra", None), ("roberta", ("a", "b")), ("mpnet", ("a", "b"))],
)
def test_an_encoder_without_one_is_refused(tiny_model: Make, architecture: str, labels: Any) -> None:
    """RoBERTa's classifier has a layer of its own in the pooler's place."""
    with pytest.raises(UserError, match="no pooler of its own"):
        tiny_model(architecture, labels=labels, heads=POOLER)


def test_a_pooler_that_the_checkpoint_does_not_have_is_refused(
    tiny_folder: Callable[..., Path], tmp_path: Path
) -> None:
    """As of many RoBERTas: transformers would draw it at random, with a warning that scrolls by."""
    model = TextModel.from_pretrained(tiny_folder("roberta"))
    model.add_heads(POOLER)
    model.save(tmp_path / "model")
    TextModel.load(tmp_path / "model")
    weights = load_file(tmp_path / "model" / "model.safetensors")
    kept = {name: value for name, value in weights.items() if "pooler" not in name}
    assert len(kept) == len(weights) - 2
    save_file(kept, tmp_path / "model" / "model.safetensors", {"format": "pt"})
    bare = TextModel.from_pretrained(tmp_path / "model")
    with pytest.raises(UserError, match="no weights for the encoder's pooler"):
        bare.add_heads(POOLER)


@pytest.mark.parametrize("architecture", ["bert", "albert", "roberta", "mpnet"])
@pytest.mark.parametrize("pooling", ["cls", "mean", "last-two"])
@pytest.mark.parametrize("embedding", ["h", "z"])
@torch.no_grad()
def test_it_is_dropped_or_kept_everywhere_alike(
    tiny_model: Make, tmp_path: Path, architecture: str, pooling: Any, embedding: Any
) -> None:
    """T15: sentence-transformers, `TextModel.load` and the pooler of plain transformers."""
    model = tiny_model(architecture, labels=None, pooling=pooling, embedding=embedding, heads=POOLER)
    model.save(tmp_path / "model")
    stored = json.loads((tmp_path / "model" / "contraverse.json").read_text())
    assert stored["heads"]["z"]["kind"] == "pooler"
    expected = model.encode(SENTENCES)
    other = SentenceTransformer(str(tmp_path / "model"), device="cpu")
    np.testing.assert_allclose(other.encode(SENTENCES), expected, atol=1e-5)
    loaded = TextModel.load(tmp_path / "model")
    assert loaded.head_specs == POOLER
    np.testing.assert_allclose(loaded.encode(SENTENCES), expected, atol=1e-6)
    if embedding == "z":
        plain = AutoModel.from_pretrained(tmp_path / "model").eval()
        encoded = model.tokenizer(SENTENCES, padding=True, return_tensors="pt")
        np.testing.assert_allclose(plain(**encoded).pooler_output, expected, atol=1e-5)

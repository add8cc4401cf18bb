"""Decoders as encoders and classifiers: the last real token, whatever the padding."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from reference.foreign import edit_json, foreign_folder
from reference.tiny import LABELS, random_batch, sentences
from sentence_transformers import SentenceTransformer
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from contraverse.errors import UserError
from contraverse.models import TextModel

DECODERS = ("llama", "gemma3_text", "qwen3", "gpt2", "opt", "gpt_neox", "bloom", "falcon", "mistral", "phi3", "biogpt")
every = pytest.mark.parametrize("architecture", DECODERS)
SENTENCES = sentences(6)


@every
@torch.no_grad()
def test_a_classifier_reads_the_last_real_token_by_ids_and_by_embeddings(tmp_path: Path, architecture: str) -> None:
    """The reference: transformers' own logits of each row by itself, where there is no padding."""
    model = TextModel.from_pretrained(foreign_folder(tmp_path, architecture), labels=LABELS).eval()
    batch = random_batch()
    alone = [
        model.encoder(input_ids=ids[mask.bool()].unsqueeze(0)).logits
        for ids, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True)
    ]
    expected = torch.cat(alone)
    out = model(batch, want=("inputs", "logits"))
    zero = torch.zeros_like(out.inputs.values)
    for logits in (out.logits, model(batch).logits, model(batch, delta=zero).logits):
        torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-5)
    own = model.encoder(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    torch.testing.assert_close(own, expected, rtol=1e-4, atol=1e-5)
    assert expected.std(0).min() > 1e-3


@every
def test_a_perturbation_of_any_real_token_reaches_the_logits_and_none_of_padding(
    tmp_path: Path, architecture: str
) -> None:
    model = TextModel.from_pretrained(foreign_folder(tmp_path, architecture), labels=LABELS).eval()
    batch = random_batch()
    delta = torch.zeros_like(model(batch, want=("inputs",)).inputs.values).requires_grad_()
    F.cross_entropy(model(batch, delta=delta).logits, batch["labels"]).backward()
    reached = delta.grad.norm(dim=2) > 0
    assert torch.equal(reached, batch["attention_mask"].bool())


@pytest.mark.parametrize("architecture", ["llama", "gemma3_text", "qwen3", "gpt2"])
@torch.no_grad()
def test_a_saved_classifier_gives_its_logits_in_plain_transformers(tmp_path: Path, architecture: str) -> None:
    model = TextModel.from_pretrained(foreign_folder(tmp_path / "start", architecture), labels=LABELS).eval()
    model.save(tmp_path / "model")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    encoded = tokenizer(SENTENCES, padding=True, return_tensors="pt")
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path / "model").eval()
    again = TextModel.load(tmp_path / "model")
    for logits in (plain(**encoded).logits, again(encoded).logits):
        torch.testing.assert_close(logits, model(encoded).logits, rtol=1e-5, atol=1e-6)
    assert again.labels == list(LABELS)


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
@torch.no_grad()
def test_a_tokenizer_without_padding_pads_with_the_end_which_is_masked(tmp_path: Path, architecture: str) -> None:
    folder = foreign_folder(tmp_path, architecture, pad_token_id=None, eos_token_id=3)
    settings = {"pad_token": None, "eos_token": "[SEP]"}
    edit_json(folder / "tokenizer_config.json", **settings)
    model = TextModel.from_pretrained(folder, labels=LABELS).eval()
    assert model.tokenizer.pad_token_id == 3
    batch = model.tokenizer.pad({"input_ids": [[2, 9, 8, 7, 6], [2, 9, 5]]}, return_tensors="pt")
    assert batch["input_ids"][1].tolist() == [2, 9, 5, 3, 3]
    zero = torch.zeros(2, 5, model.embedding_shape[1])
    short = model.encoder(input_ids=torch.tensor([[2, 9, 5]])).logits[0]
    for logits in (model(batch).logits, model(batch, delta=zero).logits):
        torch.testing.assert_close(logits[1], short, rtol=1e-4, atol=1e-5)


def test_a_tokenizer_that_cannot_pad_is_refused(tmp_path: Path) -> None:
    folder = foreign_folder(tmp_path, "llama")
    edit_json(folder / "tokenizer_config.json", pad_token=None, eos_token=None)
    with pytest.raises(UserError, match="no padding token"):
        TextModel.from_pretrained(folder)


@every
def test_an_encoder_takes_the_last_token(tmp_path: Path, architecture: str) -> None:
    folder = foreign_folder(tmp_path / "start", architecture)
    model = TextModel.from_pretrained(folder)
    assert model.pooling == "last"
    rows = model.encode(SENTENCES)
    for sentence, row in zip(SENTENCES, rows, strict=True):
        states = model.encoder(**model.tokenizer([sentence], return_tensors="pt")).last_hidden_state
        np.testing.assert_allclose(row, states[0, -1].detach(), atol=1e-5)
    if architecture in ("llama", "gpt2", "qwen3"):
        model.save(tmp_path / "model")
        other = SentenceTransformer(str(tmp_path / "model"), device="cpu")
        np.testing.assert_allclose(other.encode(SENTENCES), rows, atol=1e-5)
        np.testing.assert_allclose(TextModel.load(tmp_path / "model").encode(SENTENCES), rows, atol=1e-6)


def test_the_first_token_of_a_decoder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has seen no other") as caught:
        TextModel.from_pretrained(foreign_folder(tmp_path, "llama"), pooling="cls")
    assert "last" in str(caught.value.hint)


def test_padding_of_another_id_than_the_configs_is_not_read(tmp_path: Path) -> None:
    model = TextModel.from_pretrained(foreign_folder(tmp_path, "llama", pad_token_id=7), labels=LABELS).eval()
    batch: Any = random_batch()
    with torch.no_grad():
        alone = model({name: batch[name][3:, :6] for name in ("input_ids", "attention_mask")}).logits
        torch.testing.assert_close(model(batch).logits[3:], alone, rtol=1e-4, atol=1e-5)

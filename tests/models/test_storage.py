"""What is saved loads elsewhere, and here, with the same numbers (T15)."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from reference.tiny import ARCHITECTURES, LABELS
from sentence_transformers import SentenceTransformer
from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer

from contraverse.errors import UserError
from contraverse.models import TextModel
from contraverse.types import HeadSpec

Make = Callable[..., TextModel]
Z = {"z": HeadSpec()}
SENTENCES = ["the state of the world", "two men work here", "so", "in there before the long way back down"]
every = pytest.mark.parametrize("architecture", list(ARCHITECTURES))


def shaken(model: TextModel) -> TextModel:
    """Weights that no initialisation draws, biases and norms included, as after training."""
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.05 * torch.randn_like(p))
    return model


@every
@torch.no_grad()
def test_a_classifier_gives_its_logits_in_plain_transformers(
    tiny_model: Make, tmp_path: Path, architecture: str
) -> None:
    model = shaken(tiny_model(architecture, heads=Z))
    assert model.save(tmp_path / "model") == tmp_path / "model"
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    loaded, report = AutoModelForSequenceClassification.from_pretrained(tmp_path / "model", output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    encoded = tokenizer(SENTENCES, padding=True, return_tensors="pt")
    assert torch.equal(encoded["input_ids"], model.tokenizer(SENTENCES, padding=True, return_tensors="pt")["input_ids"])
    torch.testing.assert_close(loaded.eval()(**encoded).logits, model(encoded).logits, rtol=0, atol=1e-5)
    assert loaded.config.id2label == dict(enumerate(LABELS))


@every
def test_a_sentence_encoder_gives_its_embeddings_in_sentence_transformers(
    tiny_model: Make, tmp_path: Path, architecture: str
) -> None:
    model = shaken(tiny_model(architecture, labels=None, pooling="mean", heads=Z))
    model.save(tmp_path / "model")
    other = SentenceTransformer(str(tmp_path / "model"), device="cpu")
    np.testing.assert_allclose(other.encode(SENTENCES), model.encode(SENTENCES), atol=1e-5)


@pytest.mark.parametrize("pooling", ["cls", "mean"])
@pytest.mark.parametrize("embedding", ["h", "z"])
@pytest.mark.parametrize("head", [HeadSpec(), HeadSpec(dim=7), HeadSpec(dim=7, activation="none")])
@torch.no_grad()
def test_the_pooler_is_dropped_or_kept_everywhere_alike(
    tiny_model: Make, tmp_path: Path, pooling: Any, embedding: Any, head: HeadSpec
) -> None:
    """T15: sentence-transformers, `TextModel.load` and AutoModel with the pooling done by hand."""
    model = shaken(tiny_model(labels=None, pooling=pooling, embedding=embedding, heads={"z": head}))
    model.save(tmp_path / "model")
    expected = model.encode(SENTENCES)
    assert expected.shape == (4, 32 if embedding == "h" or head.dim is None else 7)
    other = SentenceTransformer(str(tmp_path / "model"), device="cpu")
    np.testing.assert_allclose(other.encode(SENTENCES), expected, atol=1e-5)
    np.testing.assert_allclose(TextModel.load(tmp_path / "model").encode(SENTENCES), expected, atol=1e-5)

    plain = AutoModel.from_pretrained(tmp_path / "model").eval()
    encoded = AutoTokenizer.from_pretrained(tmp_path / "model")(SENTENCES, padding=True, return_tensors="pt")
    states = plain(**encoded).last_hidden_state
    weights = encoded["attention_mask"].unsqueeze(-1)
    h = states[:, 0] if pooling == "cls" else (states * weights).sum(1) / weights.sum(1)
    if embedding == "h":
        np.testing.assert_allclose(h, expected, atol=1e-5)
    else:
        np.testing.assert_allclose(model.heads["z"](h), expected, atol=1e-5)


def test_sentence_transformers_cuts_where_the_model_does(tiny_model: Make, tmp_path: Path) -> None:
    model = tiny_model(labels=None, max_length=6)
    model.save(tmp_path / "model")
    other = SentenceTransformer(str(tmp_path / "model"), device="cpu")
    long = ["the state of the world still own see men work long get here"]
    np.testing.assert_allclose(other.encode(long), model.encode(long), atol=1e-5)


@every
@pytest.mark.parametrize("labels", [LABELS, ("score",), None])
@torch.no_grad()
def test_what_is_loaded_is_what_was_saved(
    tiny_model: Make, tmp_path: Path, batch: Any, architecture: str, labels: Any
) -> None:
    model = tiny_model(
        architecture, labels=labels, pooling="mean", heads={"z": HeadSpec(dim=5), "p": HeadSpec(activation="none")},
        max_length=17,
    )  # fmt: skip
    shaken(model).save(tmp_path / "model")
    loaded = TextModel.load(tmp_path / "model")
    assert type(loaded.encoder) is type(model.encoder)
    assert (loaded.labels, loaded.pooling, loaded.embedding, loaded.max_length, loaded.head_specs) == (
        model.labels, "mean", "h", 17, model.head_specs,
    )  # fmt: skip
    assert not loaded.training
    want = ("h", "z") if labels is None else ("h", "z", "logits")
    before, after = model(batch, want=want), loaded(batch, want=want)
    for field in want:
        torch.testing.assert_close(getattr(after, field), getattr(before, field), rtol=0, atol=1e-6)
    old, new = model.state_dict(), loaded.state_dict()
    assert old.keys() == new.keys()
    assert all(torch.equal(old[name], new[name]) for name in old if "pooler" not in name)


def test_a_model_loaded_and_saved_again_is_the_same(tiny_model: Make, tmp_path: Path) -> None:
    shaken(tiny_model(labels=None, embedding="z", heads=Z)).save(tmp_path / "first")
    TextModel.load(tmp_path / "first").save(tmp_path / "second")
    np.testing.assert_array_equal(
        TextModel.load(tmp_path / "second").encode(SENTENCES), TextModel.load(tmp_path / "first").encode(SENTENCES)
    )


@torch.no_grad()
def test_a_plain_classifier_can_be_loaded(tiny_model: Make, tmp_path: Path, batch: Any) -> None:
    model = shaken(tiny_model())
    model.encoder.save_pretrained(tmp_path)
    model.tokenizer.save_pretrained(tmp_path)
    loaded = TextModel.load(tmp_path)
    assert loaded.labels == list(LABELS)
    torch.testing.assert_close(loaded(batch).logits, model(batch).logits, rtol=0, atol=1e-6)


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_a_sentence_transformers_folder_can_be_loaded(tiny_model: Make, tmp_path: Path, pooling: Any) -> None:
    model = shaken(tiny_model(labels=None, pooling=pooling))
    model.save(tmp_path / "ours")
    SentenceTransformer(str(tmp_path / "ours"), device="cpu").save(str(tmp_path / "theirs"), create_model_card=False)
    assert not (tmp_path / "theirs" / "contraverse.json").exists()
    loaded = TextModel.load(tmp_path / "theirs")
    assert loaded.pooling == pooling
    np.testing.assert_allclose(loaded.encode(SENTENCES), model.encode(SENTENCES), atol=1e-5)


def test_a_folder_without_a_model_is_the_users_mistake(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "nothing"):
        with pytest.raises(UserError, match="no model") as caught:
            TextModel.load(folder)
        assert str(folder) in str(caught.value)
        assert caught.value.hint


def test_a_folder_is_replaced_whole(tiny_model: Make, tmp_path: Path) -> None:
    tiny_model(labels=None, embedding="z", heads=Z).save(tmp_path / "model")
    tiny_model().save(tmp_path / "model")
    names = {path.name for path in (tmp_path / "model").iterdir()}
    assert not names & {"modules.json", "1_Pooling", "2_Dense", "heads.safetensors"}
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_save_that_fails_leaves_the_old_folder(
    tiny_model: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_model()
    model.save(tmp_path / "model")
    before = sorted(path.name for path in (tmp_path / "model").iterdir())

    def full(*args: Any, **kwargs: Any) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(type(model.tokenizer), "save_pretrained", full)
    with pytest.raises(OSError, match="no space"):
        model.save(tmp_path / "model")
    assert sorted(path.name for path in (tmp_path / "model").iterdir()) == before
    assert TextModel.load(tmp_path / "model").labels == list(LABELS)


@pytest.mark.parametrize("labels", [LABELS, None])
def test_weights_are_safetensors_and_settings_are_readable(tiny_model: Make, tmp_path: Path, labels: Any) -> None:
    tiny_model(labels=labels, heads=Z).save(tmp_path / "model")
    suffixes = {path.suffix for path in (tmp_path / "model").rglob("*")}
    assert ".safetensors" in suffixes
    assert not suffixes & {".bin", ".pt", ".pkl", ".pth"}
    settings = json.loads((tmp_path / "model" / "contraverse.json").read_text())
    assert settings["heads"] == {"z": {"dim": None, "activation": "tanh", "kind": "projection", "layers": 3}}


@pytest.mark.parametrize("labels", [LABELS, None])
def test_saving_changes_neither_the_model_nor_the_generators(tiny_model: Make, tmp_path: Path, labels: Any) -> None:
    model = tiny_model(labels=labels, heads=Z).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    model.save(tmp_path / "model")
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)

"""IS-BERT: its local features, its loss, and what is tested and exported."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from reference.driving import losses_of
from reference.sentence_reference import isbert_loss, ngrams
from sentence_transformers import SentenceTransformer

from contraverse.methods import ISBERT
from contraverse.models import TextModel
from contraverse.models.heads import NGrams
from contraverse.types import HeadSpec

Make = Callable[..., TextModel]
SENTENCES = ["the state of the world", "two men work here", "so", "in there before the long way back down"]
SMALL = {"ngrams": HeadSpec(dim=12, kind="ngrams")}


def test_the_head_is_the_papers() -> None:
    """256 filters for each of the windows 1, 3, 5: 768 in all, whatever the encoder."""
    spec = ISBERT.heads["ngrams"]
    head = NGrams(384, spec.dim or 0)
    assert [tuple(conv.weight.shape) for conv in head.convs] == [(256, 384, 1), (256, 384, 3), (256, 384, 5)]
    with pytest.raises(ValueError, match="multiple of 3"):
        NGrams(384, 100)


@torch.no_grad()
def test_features_are_the_printed_convolutions(tiny_model: Make, batch: Any) -> None:
    model = tiny_model(heads=SMALL)
    out = model(batch, want=("tokens", "ngrams"))
    for row, (length, found) in enumerate(zip(batch["attention_mask"].sum(1), out.heads["ngrams"], strict=True)):
        expected = np.concatenate(
            [
                ngrams(out.tokens[row].double().numpy(), int(length), *(p.double().numpy() for p in conv.parameters()))
                for conv in model.heads["ngrams"].convs
            ],
            axis=1,
        )
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_the_loss_is_the_printed_one(tiny_model: Make, batch: Any) -> None:
    method = ISBERT()
    model = tiny_model(heads=method.heads, dropout=0.0).train()
    (loss,) = losses_of(method, model, batch)
    tokens = model(batch, want=("ngrams",)).heads["ngrams"].detach().double().numpy()
    lengths = batch["attention_mask"].sum(1).tolist()
    means = np.stack([row[:n].mean(0) for row, n in zip(tokens, lengths, strict=True)])
    assert loss.total.item() == pytest.approx(isbert_loss(tokens, lengths, means), rel=1e-4)


def test_encode_gives_the_mean_of_the_features_whatever_the_padding(tiny_model: Make) -> None:
    model = tiny_model(labels=None, embedding="ngrams", heads=SMALL)
    rows = model.encode(SENTENCES)
    assert rows.shape == (4, 12)
    for sentence, row in zip(SENTENCES, rows, strict=True):
        one = model(model.tokenizer([sentence], return_tensors="pt"), want=("ngrams",)).heads["ngrams"]
        np.testing.assert_allclose(row, one[0].mean(0).detach(), atol=1e-5)


@pytest.mark.parametrize("architecture", ["bert", "roberta", "albert"])
def test_sentence_transformers_gives_the_same_embeddings(tiny_model: Make, tmp_path: Path, architecture: str) -> None:
    """T15, with its own modules; sentences of different lengths in one batch, so that padding could leak."""
    model = tiny_model(architecture, labels=None, embedding="ngrams", heads=SMALL)
    model.save(tmp_path / "model")
    other = SentenceTransformer(str(tmp_path / "model"), device="cpu")
    np.testing.assert_allclose(other.encode(SENTENCES), model.encode(SENTENCES), atol=1e-5)
    np.testing.assert_allclose(TextModel.load(tmp_path / "model").encode(SENTENCES), model.encode(SENTENCES), atol=1e-6)


def test_a_few_steps_tell_sentences_apart(tiny_model: Make, batch: Any) -> None:
    method = ISBERT()
    model = tiny_model(heads=method.heads, dropout=0.0).train()
    optimizer = torch.optim.SGD(model.parameters(), 0.02)
    seen = []
    for _ in range(8):
        optimizer.zero_grad()
        (loss,) = losses_of(method, model, batch)
        optimizer.step()
        seen.append(loss.total.item())
    assert seen[-1] < 0.9 * seen[0]

"""Poolings of two layers, and cut word embeddings, against plain transformers."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from reference.tiny import ARCHITECTURES, LABELS
from sentence_transformers import SentenceTransformer

from contraverse.errors import UserError
from contraverse.models import TextModel

Make = Callable[..., TextModel]
SENTENCES = ["the state of the world", "two men work here", "so", "in there before the long way back down"]
LAYERS = {"first-last": (1, 2), "last-two": (1, 2)}
every = pytest.mark.parametrize("architecture", list(ARCHITECTURES))
pooled = pytest.mark.parametrize("pooling", list(LAYERS))


def expected(model: TextModel, batch: Any, one: int, other: int) -> torch.Tensor:
    """The mean over real tokens of two hidden states, row by row; 0 is what the embeddings give."""
    given = {name: batch[name] for name in ("input_ids", "attention_mask")}
    states = model.encoder.base_model(**given, output_hidden_states=True).hidden_states
    both = (states[one] + states[other]) / 2
    return torch.stack([row[:n].mean(0) for row, n in zip(both, batch["attention_mask"].sum(1), strict=True)])


@every
@pytest.mark.parametrize("labels", [None, LABELS])
@torch.no_grad()
def test_two_layers_are_those_that_are_named(tiny_model: Make, batch: Any, architecture: str, labels: Any) -> None:
    """T19: the first layer is hidden state 1, not 0, which is what the embeddings give."""
    model = tiny_model(architecture, labels=labels, pooling="first-last")
    want = ("h",) if labels is None else ("h", "logits")
    torch.testing.assert_close(model(batch, want=want).h, expected(model, batch, 1, 2), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(model(batch, want=want).h, expected(model, batch, 0, 2), atol=1e-3)


@pytest.mark.parametrize(("pooling", "layers"), [("first-last", (1, 4)), ("last-two", (3, 4))])
@torch.no_grad()
def test_of_four_layers(tiny_model: Make, batch: Any, pooling: Any, layers: tuple[int, int]) -> None:
    model = tiny_model(pooling=pooling, num_hidden_layers=4)
    torch.testing.assert_close(model(batch, want=("h",)).h, expected(model, batch, *layers))


@torch.no_grad()
def test_pooling_leaves_the_logits_alone(tiny_model: Make, batch: Any) -> None:
    torch.testing.assert_close(tiny_model(pooling="first-last")(batch).logits, tiny_model()(batch).logits)


@pooled
@pytest.mark.parametrize("architecture", ["bert", "albert", "distilbert", "modernbert"])
def test_sentence_transformers_and_load_pool_alike(
    tiny_model: Make, tmp_path: Path, pooling: Any, architecture: str
) -> None:
    """T15, with sentence-transformers' own modules: no code of others has to be trusted."""
    model = tiny_model(architecture, labels=None, pooling=pooling, **_deeper(architecture))
    model.save(tmp_path / "model")
    other = SentenceTransformer(str(tmp_path / "model"), device="cpu")
    np.testing.assert_allclose(other.encode(SENTENCES), model.encode(SENTENCES), atol=1e-5)
    loaded = TextModel.load(tmp_path / "model")
    assert loaded.pooling == pooling
    np.testing.assert_allclose(loaded.encode(SENTENCES), model.encode(SENTENCES), atol=1e-6)


def _deeper(architecture: str) -> dict[str, int]:
    return {"n_layers": 3} if architecture == "distilbert" else {"num_hidden_layers": 3}


def test_the_last_two_layers_of_one_are_refused(tiny_folder: Any) -> None:
    with pytest.raises(UserError, match="two layers"):
        TextModel.from_pretrained(tiny_folder("bert"), pooling="last-two", keep_layers=1)


@every
@torch.no_grad()
def test_what_is_not_kept_is_zero_in_what_the_first_layer_reads(
    tiny_model: Make, batch: Any, architecture: str
) -> None:
    """After position, type and layer norm; in the first run of it alone, where layers are shared."""
    model = tiny_model(architecture)
    embedded = model(batch, want=("embedded",)).embedded
    keep = (torch.rand_like(embedded) < 0.5).float()
    stacks = [module for module in model.encoder.base_model.modules() if isinstance(module, torch.nn.ModuleList)]
    layer = next((stack for stack in stacks if len(stack) == 2), stacks[0])[0]
    read, gave = [], []

    def note(_layer: Any, args: Any, out: Any) -> None:
        read.append(args[0])
        gave.append(out)

    layer.register_forward_hook(note)
    logits = model({**batch, "keep": keep}).logits
    torch.testing.assert_close(read[0], embedded * keep)
    shared = architecture == "albert"
    assert len(read) == (2 if shared else 1)
    if shared:
        torch.testing.assert_close(read[1], gave[0][0] if isinstance(gave[0], tuple) else gave[0])
    assert not torch.allclose(logits, model(batch).logits, atol=1e-3)
    torch.testing.assert_close(model({**batch, "keep": torch.ones_like(keep)}).logits, model(batch).logits)


@torch.no_grad()
def test_a_cut_off_and_a_perturbation_go_together(tiny_model: Make, batch: Any) -> None:
    """BERT by hand: the perturbation is added to the words, and what the encoder's layers then read is cut."""
    model = tiny_model()
    bert = model.encoder.bert
    words = bert.embeddings.word_embeddings(batch["input_ids"])
    delta, keep = torch.randn_like(words), (torch.rand_like(words) < 0.5).float()
    states = bert.embeddings(inputs_embeds=words + delta) * keep
    mask = (1.0 - batch["attention_mask"][:, None, None, :]) * torch.finfo(states.dtype).min
    tokens = bert.encoder(states, attention_mask=mask).last_hidden_state
    torch.testing.assert_close(model({**batch, "keep": keep}, delta=delta, want=("tokens",)).tokens, tokens)

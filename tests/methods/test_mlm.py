"""Masked language modelling: which tokens are hidden, by what, and the loss on them, against NumPy loops."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from reference.driving import Watched, gradients
from reference.tiny import SPECIAL, VOCABULARY, random_batch
from scipy.special import erf
from torch import Tensor

from contraverse.errors import UserError
from contraverse.methods import METHODS
from contraverse.models import TextModel
from contraverse.types import TrainingInfo

MASK = SPECIAL.index("[MASK]")
FACTS = TrainingInfo(
    num_examples=4, hidden_size=32, vocab_size=len(VOCABULARY), mask_id=MASK, special_ids=tuple(range(len(SPECIAL)))
)


def method(**settings: Any) -> Any:
    made = METHODS["mlm"](**settings)
    made.prepare(FACTS)
    return made


@pytest.mark.parametrize("share", [0.15, 0.5, 1.0])
def test_the_share_of_each_rows_text_is_chosen_and_nothing_else(share: float) -> None:
    batch = random_batch(64, 40)
    ids, mask = batch["input_ids"], batch["attention_mask"]
    ids[5, 1:-1] = SPECIAL.index("[UNK]")  # a row without text
    chosen = method(mlm_probability=share).choose(ids, mask)
    for row in range(64):
        text = [t for t in range(40) if mask[row, t] and int(ids[row, t]) >= len(SPECIAL)]
        where = [t for t in range(40) if chosen[row, t]]
        assert set(where) <= set(text)
        assert len(where) == (max(1, round(len(text) * share)) if text else 0)


def test_every_position_is_as_likely_as_any_other() -> None:
    ids = torch.full((4000, 12), 9)
    ids[:, 0], ids[:, -1] = 2, 3
    share = method(mlm_probability=0.3).choose(ids, torch.ones_like(ids)).float().mean(0)
    assert (share[[0, -1]] == 0).all()
    # Three of ten; four standard deviations of a share of 4,000.
    assert (share[1:-1] - 0.3).abs().max() < 4 * math.sqrt(0.3 * 0.7 / 4000)


def test_eighty_percent_are_masked_ten_replaced_and_ten_kept() -> None:
    n = 40_000
    ids = torch.full((1, n), 50)
    chosen = torch.arange(n).unsqueeze(0) < n // 2
    hidden = method().hide(ids, chosen)
    assert torch.equal(hidden[~chosen], ids[~chosen])
    seen = hidden[chosen]
    # A random token may be the mask or the one that was there.
    expected = {MASK: 0.8 + 0.1 / len(VOCABULARY), 50: 0.1 + 0.1 / len(VOCABULARY)}
    for token, share in expected.items():
        assert (seen == token).float().mean().item() == pytest.approx(share, abs=4 * math.sqrt(share / len(seen)))
    others = seen[(seen != MASK) & (seen != 50)]
    assert set(others.tolist()) == set(range(len(VOCABULARY))) - {MASK, 50}


def reference(tokens: Any, words: Any, head: dict[str, Any], ids: Any, chosen: Any) -> float:
    """-1/|M| sum log p(x_j), one position at a time: dense, GELU, layer norm, products with every word, softmax."""
    losses = []
    for b, t in zip(*np.nonzero(chosen), strict=True):
        x = head["dense.weight"] @ tokens[b, t] + head["dense.bias"]
        x = x * 0.5 * (1 + erf(x / math.sqrt(2)))
        x = (x - x.mean()) / math.sqrt(((x - x.mean()) ** 2).mean() + 1e-5)
        x = x * head["norm.weight"] + head["norm.bias"]
        scores = words @ x + head["bias"]
        top = scores.max()
        losses.append(math.log(np.exp(scores - top).sum()) + top - scores[ids[b, t]])
    return float(np.mean(losses))


@pytest.mark.parametrize("architecture", ["bert", "albert"])  # ALBERT's words are narrower than its states
def test_the_loss_is_the_mean_over_the_chosen_positions(
    architecture: str, tiny_model: Callable[..., TextModel]
) -> None:
    made = method(mlm_probability=0.4)
    model = tiny_model(architecture, dropout=0.0, heads=made.heads).train()
    batch, drawn = random_batch(), {}

    def spy(ids: Tensor, mask: Tensor) -> Tensor:
        drawn["chosen"] = type(made).choose(made, ids, mask)
        return drawn["chosen"]

    made.choose = spy
    watched = Watched(model)
    (loss,) = made.losses(watched, batch)
    first = watched.watch.calls[0]
    assert first.want == ("tokens",)
    assert first.out.tokens is not None
    head = {k: v.double().numpy() for k, v in model.heads["reconstruction"].state_dict().items()}
    words = model.encoder.get_input_embeddings().weight.detach().double().numpy()
    tokens = first.out.tokens.detach().double().numpy()
    expected = reference(tokens, words, head, batch["input_ids"].numpy(), drawn["chosen"].numpy())
    assert loss.total.item() == pytest.approx(expected, rel=1e-5)
    assert loss.parts["mlm"].item() == pytest.approx(expected, rel=1e-5)
    assert 0 <= loss.parts["mlm_accuracy"].item() <= 1


def test_what_was_hidden_cannot_be_seen(tiny_model: Callable[..., TextModel]) -> None:
    """Two texts that differ where [MASK] stands give the same states."""
    made = method()
    model = tiny_model(dropout=0.0, heads=made.heads)
    states = []
    for word in (20, 30):
        batch = random_batch()
        batch["input_ids"][0, 3] = word
        made.choose = lambda ids, mask: torch.arange(9).expand(4, 9) == 3
        made.hide = lambda ids, chosen: ids.masked_fill(chosen, MASK)
        watched = Watched(model)
        next(made.losses(watched, batch))
        assert int(batch["input_ids"][0, 3]) == word
        states.append(watched.watch.calls[0].out.tokens)
    assert torch.equal(*states)


def test_a_batch_without_text_gives_zero_and_finite_gradients(tiny_model: Callable[..., TextModel]) -> None:
    made = method()
    model = tiny_model(heads=made.heads).train()
    batch = random_batch()
    batch["input_ids"][batch["input_ids"] >= len(SPECIAL)] = SPECIAL.index("[UNK]")
    assert all(grad.isfinite().all() for grad in gradients(made, model, batch).values())
    (loss,) = made.losses(model, batch)
    assert loss.total.item() == 0


def test_it_learns_which_word_a_sentence_repeats(tiny_model: Callable[..., TextModel]) -> None:
    made = method(mlm_probability=0.3)
    model = tiny_model(dropout=0.0, heads=made.heads, initializer_range=0.05).train()
    rows = torch.tensor([[2, *[word] * 7, 3] for word in range(10, 18)])
    batch = {"input_ids": rows, "attention_mask": torch.ones_like(rows)}
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    losses = []
    for _ in range(120):
        (loss,) = made.losses(model, batch)
        optimizer.zero_grad()
        loss.total.backward()
        optimizer.step()
        losses.append(loss.total.item())
    assert losses[0] > 3
    assert np.mean(losses[-20:]) < 0.7  # a guess among the eight words is 2.08


def test_a_tokenizer_without_a_mask_is_refused() -> None:
    with pytest.raises(UserError, match="mask token"):
        METHODS["mlm"]().prepare(TrainingInfo(num_examples=4, hidden_size=32, vocab_size=100))
    with pytest.raises(ValueError, match="prepare"):
        next(METHODS["mlm"]().losses(torch.nn.Identity(), random_batch()))

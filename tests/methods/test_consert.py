"""ConSERT: what each view does to a sentence, and the loss between two of them."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from reference.driving import FACTS, Watched, gradients, losses_of
from reference.sentence_reference import nt_xent
from reference.tiny import SPECIAL

from contraverse.methods import ConSERT
from contraverse.models import TextModel

Make = Callable[..., TextModel]


def make(**settings: Any) -> ConSERT:
    method = ConSERT(**settings)
    method.prepare(FACTS)
    return method


def text(batch: Any) -> torch.Tensor:
    return batch["input_ids"] >= len(SPECIAL)


# views


def test_shuffling_permutes_the_text_of_each_row_and_nothing_else(batch: Any) -> None:
    batch["token_type_ids"] = torch.arange(9).repeat(4, 1)
    view = make().augment("shuffle", batch, 32)
    real = text(batch)
    assert torch.equal(view["input_ids"][~real], batch["input_ids"][~real])
    assert torch.equal(view["input_ids"].sort(1).values, batch["input_ids"].sort(1).values)
    assert not torch.equal(view["input_ids"], batch["input_ids"])
    # What belongs to a token goes with it.
    assert torch.equal(batch["input_ids"].gather(1, view["token_type_ids"]), view["input_ids"])
    assert torch.equal(view["attention_mask"], batch["attention_mask"])


def test_every_order_is_as_likely() -> None:
    """Three words, six orders."""
    row = {"input_ids": torch.tensor([[2, 7, 8, 9, 3, 0]]), "attention_mask": torch.tensor([[1, 1, 1, 1, 1, 0]])}
    many = {name: value.repeat(3000, 1) for name, value in row.items()}
    orders, counts = make().augment("shuffle", many, 32)["input_ids"].unique(dim=0, return_counts=True)
    assert len(orders) == 6
    assert (counts - 500).abs().max() < 100


@torch.no_grad()
def test_shuffling_tokens_is_shuffling_position_ids(tiny_model: Make, batch: Any) -> None:
    """As the authors do it: the mean over tokens is the same."""
    model, method = tiny_model(), make()
    order = method._shuffled(batch["input_ids"], batch["attention_mask"])
    view = {**batch, "input_ids": batch["input_ids"].gather(1, order)}
    states = model.encoder.bert(
        input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], position_ids=order.argsort(1)
    ).last_hidden_state
    weights = batch["attention_mask"].unsqueeze(-1)
    torch.testing.assert_close(method.embed(model, view), (states * weights).sum(1) / weights.sum(1))


@pytest.mark.parametrize(("rate", "counts"), [(0.0, [0, 0, 0, 0]), (0.3, [2, 2, 2, 1]), (0.5, [4, 3, 2, 2])])
def test_token_cutoff_cuts_that_share_of_the_text(batch: Any, rate: float, counts: list[int]) -> None:
    """Rows of 7, 6, 5 and 4 words; halves are rounded to even."""
    keep = make(token_rate=rate).augment("token-cutoff", batch, 32)["keep"]
    assert keep.shape == (4, 9, 1)
    cut = keep.squeeze(-1) == 0
    assert cut.sum(1).tolist() == counts
    assert not (cut & ~text(batch)).any()


def test_feature_cutoff_cuts_the_same_features_of_all_tokens_of_a_row(batch: Any) -> None:
    keep = make().augment("feature-cutoff", batch, 40)["keep"]
    assert keep.shape == (4, 1, 40)
    assert (keep == 0).sum((1, 2)).tolist() == [8] * 4
    assert not torch.equal(keep[0], keep[1])


def test_dropout_cuts_single_entries_and_keeps_the_mean(batch: Any) -> None:
    keep = make(dropout_rate=0.25).augment("dropout", batch, 400)["keep"]
    assert keep.shape == (4, 9, 400)
    assert keep.unique().tolist() == pytest.approx([0, 4 / 3])
    assert keep.mean().item() == pytest.approx(1, abs=0.02)


def test_what_is_cut_off_is_not_trained(tiny_model: Make, batch: Any) -> None:
    """A token that both views cut off cannot be seen, so its embedding gets no gradient."""
    method = make(first="token-cutoff", second="token-cutoff", token_rate=0.9)
    model = tiny_model(dropout=0.0).train()
    table = model.encoder.get_input_embeddings().weight
    kept = torch.zeros(4, 9, dtype=torch.bool)
    plain = method.augment

    def watched(view: str, given: Any, width: int) -> Any:
        made = plain(view, given, width)
        kept.logical_or_(made["keep"].squeeze(-1).bool())
        return made

    method.augment = watched  # type: ignore[method-assign]
    losses_of(method, model, batch)
    seen = set(batch["input_ids"][kept & batch["attention_mask"].bool()].tolist())
    unseen = set(batch["input_ids"].flatten().tolist()) - seen
    assert unseen
    assert table.grad is not None
    assert all(table.grad[i].abs().max() == 0 for i in unseen)
    assert all(table.grad[i].abs().max() > 0 for i in seen)


def test_special_tokens_have_to_be_known(batch: Any) -> None:
    with pytest.raises(ValueError, match="prepare"):
        ConSERT().augment("shuffle", batch, 32)


# the loss


def test_the_loss_is_the_printed_one(tiny_model: Make, batch: Any) -> None:
    """Mean of the last layer, whatever is pooled at test; without the encoder's dropout."""
    model = tiny_model(pooling="cls").train()
    method = make(first="none", second="feature-cutoff", temperature=0.2)
    watched = Watched(model)
    (loss,) = losses_of(method, watched, batch)
    first, second = (
        torch.stack([row[:n].mean(0) for row, n in zip(call.out.tokens, batch["attention_mask"].sum(1), strict=True)])
        for call in watched.watch.passes()
    )
    expected = nt_xent(first.detach().double().numpy(), second.detach().double().numpy(), 0.2)
    assert loss.total.item() == pytest.approx(expected, rel=1e-5)
    plain = model.eval()(batch, want=("tokens",)).tokens
    torch.testing.assert_close(watched.watch.passes()[0].out.tokens, plain)


def test_the_encoders_dropout_can_be_left_on(tiny_model: Make, batch: Any) -> None:
    model = Watched(tiny_model().train())
    losses_of(make(first="none", second="none", encoder_dropout=True), model, batch)
    first, second = (call.out.tokens for call in model.watch.passes())
    assert not torch.allclose(first, second, atol=1e-3)


@pytest.mark.parametrize("views", [("adversarial", "shuffle"), ("adversarial", "adversarial")])
def test_an_adversarial_view_climbs_the_contrast_itself(tiny_model: Make, batch: Any, views: tuple[Any, Any]) -> None:
    method = make(first=views[0], second=views[1], epsilon=0.05)
    method.make = lambda view, given, width: given  # type: ignore[method-assign, misc]
    model = Watched(tiny_model().train())
    (loss,) = losses_of(method, model, batch)
    calls = model.watch.passes()
    assert [call.delta is not None and bool(call.delta.abs().max() > 0) for call in calls] == (
        [False, False, True] if views[1] == "shuffle" else [False, False, True, True]
    )
    lengths = calls[-1].delta.flatten(1).norm(dim=1)  # type: ignore[union-attr]
    torch.testing.assert_close(lengths, torch.full((4,), 0.05))
    (clean,) = losses_of(make(first="none", second="none"), model, batch)
    assert loss.total > clean.total


@pytest.mark.parametrize(("views", "cost"), [(("none", "shuffle"), 6), (("shuffle", "adversarial"), 8),
                                             (("adversarial", "adversarial"), 10)])  # fmt: skip
def test_it_costs_two_forwards_for_each_adversarial_view(
    tiny_model: Make, batch: Any, views: tuple[Any, Any], cost: int
) -> None:
    """Of the encoder's layers: without dropout attention's own products are not counted anywhere."""
    from torch.utils.flop_counter import FlopCounterMode

    model = tiny_model(dropout=0.0, hidden_size=64, num_hidden_layers=4, intermediate_size=256).train()
    batch = {name: value[:1, :6].repeat(8, 3) for name, value in batch.items() if name != "labels" and value.dim() == 2}
    method = make(first=views[0], second=views[1])
    counts = []
    for work in (lambda: model(batch, want=("tokens",)), lambda: gradients(method, model, batch)):
        with FlopCounterMode(display=False) as counter:
            work()
        counts.append(counter.get_total_flops())
    assert counts[1] / counts[0] == pytest.approx(cost, rel=0.03)
    assert method.cost == f"{cost}F"


@pytest.mark.parametrize("wrong", [{"first": "crop"}, {"token_rate": 1}, {"feature_rate": -0.1}, {"dropout_rate": 1.0},
                                   {"epsilon": 0}, {"temperature": 0}])  # fmt: skip
def test_impossible_settings_are_refused(wrong: Any) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        ConSERT(**wrong)

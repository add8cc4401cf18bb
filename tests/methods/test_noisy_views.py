"""Methods on a text and its noisy twin: consistency's equations, and the second view of the contrastive ones."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from reference import consistency_reference
from reference.differences import slope
from reference.driving import FACTS, Watched, flat, gradients, losses_of, make
from reference.tiny import random_batch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from contraverse.functional import info_nce
from contraverse.methods import METHODS, Consistency
from contraverse.models import TextModel
from contraverse.types import Method

TWO_VIEWS = [name for name, method in METHODS.items() if method.text_views == 2]


def with_noise(rows: int = 4, tokens: int = 9, *, full: bool = False) -> dict[str, Any]:
    batch, twin = random_batch(rows, tokens), random_batch(rows, tokens if full else tokens + 2, seed=5)
    if full:
        for part in (batch, twin):
            part["input_ids"][part["input_ids"] == 0] = 7
            part["attention_mask"] = torch.ones_like(part["attention_mask"])
    return {**batch, "noisy": {name: twin[name] for name in ("input_ids", "attention_mask")}}


class Logits(nn.Module):
    """A model whose logits are parameters: ``clean`` of a batch with labels, ``noisy`` of the twin."""

    def __init__(self, clean: torch.Tensor, noisy: torch.Tensor) -> None:
        super().__init__()
        self.clean, self.noisy = nn.Parameter(clean), nn.Parameter(noisy)

    def forward(self, batch: Any, **arguments: Any) -> Any:
        class Result:
            logits = self.clean if "labels" in batch else self.noisy

        return Result()


def test_the_issue_names_these() -> None:
    assert set(TWO_VIEWS) == {"simcse", "uscal", "scal", "cl", "consert", "consistency"}


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("a", [0.0, 0.7])
def test_consistency_is_the_equation(symmetric: bool, a: float) -> None:
    """Value and gradients at both texts' logits, by hand."""
    clean, noisy = torch.randn(4, 3), torch.randn(4, 3)
    labels = [0, 2, 1, 1]
    method = Consistency(weight=1.3, noisy_weight=a, divergence="symmetric" if symmetric else "self-teaching")
    model = Logits(clean.clone(), noisy.clone())
    (loss,) = method.losses(model, {"labels": torch.tensor(labels), "noisy": {}})
    loss.total.backward()
    settings: dict[str, Any] = {"a": a, "b": 1.3, "symmetric": symmetric}
    x, y = clean.double().numpy(), noisy.double().numpy()

    def total(at: Any, beside: Any) -> float:
        return consistency_reference.loss(at, beside, labels, teacher=x, **settings)

    assert loss.total.item() == pytest.approx(total(x, y), rel=1e-5)
    slopes = [
        slope(lambda at: total(at, y), x),
        slope(lambda at: total(x, at), y),
    ]
    for parameter, gradient in zip((model.clean, model.noisy), slopes, strict=True):
        np.testing.assert_allclose(parameter.grad.numpy(), gradient, atol=1e-5)


@pytest.mark.parametrize("divergence", ["symmetric", "self-teaching"])
def test_consistency_of_scores_is_a_squared_distance(divergence: Any) -> None:
    clean, noisy, labels = torch.tensor([[1.0], [2.0]]), torch.tensor([[1.5], [0.0]]), torch.tensor([1.0, 1.0])
    (loss,) = Consistency(weight=2.0, divergence=divergence).losses(
        Logits(clean, noisy), {"labels": labels, "noisy": {}}
    )
    assert loss.total.item() == pytest.approx(0.5 + 0.625 + 2 * 2.125)


@pytest.mark.parametrize("name", TWO_VIEWS)
def test_both_views_are_seen_and_the_noisy_one_is_trained_on(name: str, tiny_model: Callable[..., TextModel]) -> None:
    method, batch = make(name), with_noise()
    model = tiny_model(heads=method.heads, dropout=0.0).train()
    before = {key: value.clone() for key, value in batch["noisy"].items()}
    first = flat(gradients(method, model, batch))
    assert first.isfinite().all()
    assert all(torch.equal(batch["noisy"][key], value) for key, value in before.items())
    other = {**batch, "noisy": {**batch["noisy"], "input_ids": batch["noisy"]["input_ids"].flip(0)}}
    other["noisy"]["attention_mask"] = batch["noisy"]["attention_mask"].flip(0)
    assert not torch.allclose(flat(gradients(make(name), model, other)), first)
    without = {key: value for key, value in batch.items() if key != "noisy"}
    assert not torch.allclose(flat(gradients(make(name), model, without)), first)
    wide = {key: F.pad(value, (0, 3)) for key, value in batch["noisy"].items()}
    if name != "consert":  # its draws are as many as there are tokens
        padded = flat(gradients(make(name), model, {**batch, "noisy": wide}))
        torch.testing.assert_close(padded, first, rtol=1e-3, atol=1e-4 * first.abs().max().item())


@pytest.mark.parametrize("name", [name for name in TWO_VIEWS if name != "consert"])
def test_a_twin_without_noise_is_the_text_itself(name: str, tiny_model: Callable[..., TextModel]) -> None:
    batch = random_batch()
    model = tiny_model(heads=make(name).heads, dropout=0.0).train()
    twin = {**batch, "noisy": {key: batch[key].clone() for key in ("input_ids", "attention_mask")}}
    plain, noisy = (flat(gradients(make(name), model, b)) for b in (batch, twin))
    torch.testing.assert_close(noisy, plain, rtol=1e-4, atol=1e-6)


def test_scal_attacks_the_noisy_text(tiny_model: Callable[..., TextModel]) -> None:
    """x^adv = x' + epsilon g / ||g||, g that of CE(x', y); the rest of eq. (8) as it is."""
    batch, method = with_noise(), make("scal")
    model = tiny_model(heads=method.heads, dropout=0.0).train()
    watched = Watched(model)
    (loss,) = losses_of(method, watched, batch)
    delta = watched.watch.passes()[-1].delta
    noisy, labels = batch["noisy"], batch["labels"]
    at = torch.zeros_like(delta, requires_grad=True)
    (g,) = torch.autograd.grad(F.cross_entropy(model(noisy, delta=at).logits, labels), at)
    expected = method.epsilon * g / g.flatten(1).norm(dim=1)[:, None, None]
    torch.testing.assert_close(delta, expected, rtol=1e-4, atol=1e-6)
    clean, attacked = (model(x, delta=d, want=("logits", "z")) for x, d in ((batch, None), (noisy, delta)))
    ce = (F.cross_entropy(clean.logits, labels) + F.cross_entropy(attacked.logits, labels)) / 2
    contrast = info_nce(clean.z, attacked.z, method.temperature)
    torch.testing.assert_close(loss.total, ce + method.alpha * contrast, rtol=1e-4, atol=1e-5)


def forward_units(method: Method, batch: dict[str, Any], tiny_model: Callable[..., TextModel]) -> float:
    """Counted FLOPs of a step on ``batch``, in those of one forward pass."""
    size = {"hidden_size": 64, "num_hidden_layers": 4, "intermediate_size": 256}
    model = tiny_model(heads=method.heads, dropout=0.0, **size).train()
    with FlopCounterMode(display=False) as forward:
        model(batch, want=("tokens",))
    with FlopCounterMode(display=False) as counter:
        gradients(method, model, batch)
    return counter.get_total_flops() / forward.get_total_flops()


@pytest.mark.parametrize("name", TWO_VIEWS)
def test_the_cost_on_noise_is_the_counted_one(name: str, tiny_model: Callable[..., TextModel]) -> None:
    method, batch = make(name, hidden_size=64), with_noise(8, 16, full=True)
    counted = forward_units(method, batch, tiny_model)
    stated = float((method.cost_with_noise or method.cost).removesuffix("F"))
    assert counted == pytest.approx(stated, rel=0.03)


def with_draws(rows: int = 4, tokens: int = 9, count: int = 3, *, full: bool = False) -> dict[str, Any]:
    """A batch with several noisy texts of each row in the place of one."""
    twins = [random_batch(rows, tokens, seed=5 + k) for k in range(count)]
    batch = with_noise(rows, tokens, full=full)
    if full:
        for twin in twins:
            twin["input_ids"][twin["input_ids"] == 0] = 7
            twin["attention_mask"] = torch.ones_like(twin["attention_mask"])
    del batch["noisy"]
    names = ("input_ids", "attention_mask")
    return {**batch, "draws": {name: torch.stack([twin[name] for twin in twins]) for name in names}}


def worst(name: str) -> Any:
    method = METHODS[name](
        views_of="worst", view_draws=3, **({"first": "none", "second": "none"} if name == "consert" else {})
    )
    method.prepare(FACTS)
    return method


@pytest.mark.parametrize("name", TWO_VIEWS)
def test_the_worst_view_is_that_of_the_largest_loss_of_its_row(name: str, tiny_model: Callable[..., TextModel]) -> None:
    """Each row's loss on each draw by loops; then the step is that of a batch which has the worst as its only view."""
    method, batch = worst(name), with_draws(8)
    model = tiny_model(heads=method.heads, dropout=0.0).train()
    labels, draws = batch["labels"], batch["draws"]

    def features(of: Any) -> Any:
        if name == "consert":
            out = model(of, want=("tokens",)).tokens
            mask = of["attention_mask"].unsqueeze(-1)
            return (out * mask).sum(1) / mask.sum(1), None
        if "z" not in method.heads:
            return None, model(of).logits
        out = model(of, want=("logits", "z"))
        return out.z, out.logits

    def loss(row: int, z: Any, logits: Any) -> float:
        """Loss of one row's view, from the features and logits of all views of that draw."""
        ce = contrast = divergence = 0.0
        if z is not None:
            similar = F.cosine_similarity(anchors[row : row + 1], z) / method.temperature
            contrast = (similar.logsumexp(0) - similar[row]).item()
        if logits is not None:
            ce = F.cross_entropy(logits[row : row + 1], labels[row : row + 1]).item()
            p, q = (F.softmax(scores[row].double(), 0) for scores in (clean, logits))
            divergence = ((p - q) * (p / q).log()).sum().item() / 2
        if name == "cl":
            return ce / 2 + float(method.alpha) * contrast
        return {"scal": ce, "consistency": ce + divergence}.get(name, contrast)

    with torch.no_grad():
        anchors, clean = features(batch)
        views = [features({key: value[k] for key, value in draws.items()}) for k in range(3)]
        chosen = [int(np.argmax([loss(row, *view) for view in views])) for row in range(8)]
    only = {key: torch.stack([value[k, i] for i, k in enumerate(chosen)]) for key, value in draws.items()}
    alone = {**{key: value for key, value in batch.items() if key != "draws"}, "noisy": only}
    assert len(set(chosen)) > 1  # or a mistake in the choice by row would not be seen
    expected = flat(gradients(worst(name), model, alone))
    torch.testing.assert_close(flat(gradients(method, model, batch)), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", TWO_VIEWS)
def test_the_cost_of_the_worst_view_is_the_counted_one(name: str, tiny_model: Callable[..., TextModel]) -> None:
    method, batch = METHODS[name](views_of="worst", view_draws=3), with_draws(8, 16, full=True)
    method.prepare(replace(FACTS, hidden_size=64))
    counted = forward_units(method, batch, tiny_model)
    stated = float(method.cost_with_noise.removesuffix("F"))
    assert stated >= float(method.cost.removesuffix("F")) + 3
    assert counted == pytest.approx(stated, rel=0.03)

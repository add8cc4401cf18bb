"""InfoBERT: what each pass reads, what its perturbation climbs, and what the total is made of."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from reference import infobert_reference as reference
from reference.driving import Watched, flat, gradients, losses_of
from torch import Tensor

from contraverse.methods import METHODS, InfoBERT
from contraverse.models import TextModel

Make = Callable[..., TextModel]
FAR = {"gamma": 0.0, "step_size": 0.3, "beta": 0.05, "alpha": 0.2}


def build(tiny_model: Make, architecture: str = "bert", dropout: float = 0.0, **settings: Any) -> tuple[Any, TextModel]:
    method = InfoBERT(**{**FAR, **settings})
    return method, tiny_model(architecture, dropout=dropout, heads=method.heads).train()


def array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().double().numpy()


def bottleneck(embedded: Tensor, mask: Tensor) -> Tensor:
    """The mean over all pairs, written out."""
    real = embedded[mask.bool()]
    return (real.unsqueeze(0) - real.unsqueeze(1)).square().sum(-1).mean() / 2


def climbed(model: TextModel, batch: Any, delta: Tensor, beta: float) -> tuple[Tensor, Tensor]:
    """The gradient at ``delta`` of what it climbs, and the embeddings there."""
    delta = delta.clone().requires_grad_()
    out = model(batch, delta=delta, want=("logits", "embedded"))
    loss = F.cross_entropy(out.logits, batch["labels"]) + beta * bottleneck(out.embedded, batch["attention_mask"])
    (grad,) = torch.autograd.grad(loss, delta)
    return grad, out.embedded


@pytest.mark.parametrize("architecture", ["bert", "albert", "deberta-v2", "modernbert", "distilbert"])
def test_a_token_is_what_the_first_layer_reads(tiny_model: Make, batch: Any, architecture: str) -> None:
    """Taken from the encoder by hand: the input of its first layer; it feels the perturbation."""
    model = tiny_model(architecture, dropout=0.0)
    layers = {"distilbert": "transformer.layer.0", "modernbert": "layers.0", "albert": "encoder.albert_layer_groups.0"}
    first = model.encoder.base_model.get_submodule(layers.get(architecture, "encoder.layer.0"))
    read: list[Tensor] = []
    handle = first.register_forward_pre_hook(lambda _module, arguments: read.append(arguments[0]))
    delta = torch.randn_like(model(batch, want=("inputs",)).inputs.values)
    for settings in ({}, {"delta": delta}):
        read.clear()
        out = model(batch, want=("embedded", "logits"), **settings)
        torch.testing.assert_close(out.embedded, read[0])
    handle.remove()
    assert not torch.allclose(out.embedded, model(batch, want=("embedded",)).embedded)
    assert model(batch).requested == ("logits",)


def test_the_total_is_that_of_the_paper(tiny_model: Make, batch: Any) -> None:
    """Every pass: cross-entropy, the bound over all pairs, and InfoNCE of the anchored features through the critic."""
    method, model = build(tiny_model)
    watched = Watched(model)
    losses = losses_of(method, watched, batch)
    calls = watched.watch.passes()
    assert len(losses) == len(calls) == 3
    mask, critic = batch["attention_mask"], model.heads["critic"]
    weights = [array(w) for w in (critic.left.weight, critic.right.weight, critic.left.bias, critic.score.weight[0])]
    score = reference.mlp_critic(np.hstack(weights[:2]), weights[2], weights[3], critic.score.bias.item())
    for loss, call in zip(losses, calls, strict=True):
        assert call.delta is not None
        grad, embedded = climbed(model, batch, call.delta, 0.05)
        tokens, sentences = [], []
        for row in range(4):
            for place in reference.anchored(array(grad[row]), mask[row].tolist()):
                tokens.append(array(embedded[row, place]))
                sentences.append(array(model(batch, delta=call.delta, want=("tokens",)).tokens[row, 0]))
        parts = [F.cross_entropy(call.out.logits, batch["labels"]).item(),
                 reference.club_bound(array(embedded[mask.bool()])),
                 reference.info_nce(np.array(tokens), np.array(sentences), score)]  # fmt: skip
        total = reference.total(*parts, 0.05, 0.2)
        assert loss.total.item() * 3 == pytest.approx(total, rel=1e-4)
        assert loss.parts["bottleneck"].item() == pytest.approx(parts[1], rel=1e-4)
        assert loss.parts["information"].item() == pytest.approx(parts[2], rel=1e-2, abs=1e-5)
    assert ["ce" in loss.parts for loss in losses] == [True, False, False]


@pytest.mark.parametrize("alpha", [0.2, 50.0])
def test_the_perturbation_climbs_the_task_and_the_bottleneck_alone(tiny_model: Make, batch: Any, alpha: float) -> None:
    """However much the third term weighs."""
    method, model = build(tiny_model, alpha=alpha, beta=0.5)
    watched = Watched(model)
    losses_of(method, watched, batch)
    calls = watched.watch.passes()
    for before, after in pairwise(calls):
        assert before.delta is not None
        assert after.delta is not None
        grad, _ = climbed(model, batch, before.delta, 0.5)
        step = 0.3 * grad / grad.flatten(1).norm(dim=1).reshape(-1, 1, 1)
        torch.testing.assert_close(after.delta - before.delta, step, rtol=1e-3, atol=1e-5)


def test_the_gradient_is_that_of_the_whole(tiny_model: Make, batch: Any) -> None:
    """With the perturbations and the choice of tokens held constant; the critic and both of its sides are trained."""
    method, model = build(tiny_model)
    watched = Watched(model)
    losses_of(method, watched, batch)
    got = gradients(method, model, batch)
    model.zero_grad()
    mask, critic = batch["attention_mask"], model.heads["critic"]
    for call in watched.watch.passes():
        assert call.delta is not None
        grad, _ = climbed(model, batch, call.delta, 0.05)
        chosen = torch.zeros_like(mask, dtype=torch.bool)
        for row in range(4):
            chosen[row, reference.anchored(array(grad[row]), mask[row].tolist())] = True
        out = model(batch, delta=call.delta, want=("logits", "embedded", "tokens"))
        row, local = chosen.nonzero()[:, 0], out.embedded[chosen]
        pairs = torch.cat([local.repeat_interleave(4, 0), out.tokens[:, 0].repeat(len(local), 1)], 1)
        weight = torch.cat([critic.left.weight, critic.right.weight], 1)
        hidden = F.relu(F.linear(pairs, weight, critic.left.bias))
        scores = F.softplus(critic.score(hidden)).reshape(len(local), 4)
        own = scores[torch.arange(len(local)), row]
        bound = (own - scores.exp().mean(0).log()[row]).mean()
        ce = F.cross_entropy(out.logits, batch["labels"])
        ((ce + 0.05 * bottleneck(out.embedded, mask) - 0.2 * bound) / 3).backward()
    want = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    assert {"heads.critic.left.weight", "heads.critic.score.weight"} <= set(want)
    torch.testing.assert_close(flat(got), flat(want), rtol=1e-3, atol=1e-5)


def test_without_its_terms_it_is_freelb(tiny_model: Make, batch: Any) -> None:
    settings = {"steps": 3, "step_size": 0.3, "gamma": 0.2, "epsilon": 0.4}
    method, model = build(tiny_model, **settings, alpha=0.0, beta=0.0)
    mine = {name: g for name, g in gradients(method, model, batch).items() if not name.startswith("heads.")}
    other = METHODS["freelb"](**settings)
    torch.testing.assert_close(flat(mine), flat(gradients(other, model, batch)), rtol=1e-4, atol=1e-6)


def test_a_regression_can_be_trained(tiny_model: Make, batch: Any) -> None:
    method = InfoBERT(**FAR)
    model = tiny_model(labels=("score",), heads=method.heads).train()
    batch = {**batch, "labels": torch.tensor([0.5, -1.0, 2.0, 0.0])}
    assert all(g.isfinite().all() for g in gradients(method, model, batch).values())


def test_the_critic_learns_which_sentence_a_token_stands_in(tiny_model: Make, batch: Any) -> None:
    method, model = build(tiny_model, steps=1, alpha=1.0, beta=0.0)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    seen = []
    for _ in range(40):
        model.zero_grad()
        (loss,) = losses_of(method, model, batch)
        optimizer.step()
        seen.append(loss.parts["information"].item())
    assert seen[0] < 0  # a bound above zero is information
    assert seen[-1] > 0.1


def test_the_critic_has_the_papers_size(tiny_model: Make) -> None:
    """2 * 768 -> 300 -> 1 for BERT-base; here the encoder is 32 wide, and ALBERT's embeddings 16."""
    for architecture in ("bert", "albert"):
        _, model = build(tiny_model, architecture)
        count = sum(p.numel() for p in model.heads["critic"].parameters())
        assert count == (2 * 32) * 300 + 300 + 300 + 1


def test_the_defaults_are_the_papers() -> None:
    method = InfoBERT()
    assert (method.alpha, method.beta, method.low, method.high) == (5e-3, 5e-3, 0.5, 0.9)
    assert (method.passes, method.ball.step_size, method.gamma, method.ball.epsilon) == (3, 0.04, 0.08, None)


@pytest.mark.parametrize("wrong", [{"alpha": -1}, {"beta": -1}, {"low": 0.9, "high": 0.5}, {"high": 1.5}, {"steps": 0}])
def test_impossible_settings_are_refused(wrong: Any) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        InfoBERT(**wrong)

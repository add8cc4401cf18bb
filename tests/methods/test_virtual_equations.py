"""SMART and ALUM against the papers' equations, one sentence at a time, on a classifier of words."""

import copy
from typing import Any

import numpy as np
import pytest
import torch
from reference import freelb_reference, smart_reference
from reference.differences import slope
from reference.driving import Watched, losses_of
from reference.freelb_reference import Array, Classifier
from reference.weighted_words import WeightedWords, cut, ragged, random_classifier
from torch import Tensor

from contraverse.methods import METHODS


def logits_of(like: Classifier, ids: list[int], classes: slice = slice(None)) -> smart_reference.Logits:
    """A sentence's logits as a function of its perturbation."""

    def logits(delta: Array) -> Array:
        h = sum(like.places[t] * (like.table[token] + delta[t]) for t, token in enumerate(ids))
        return like.weight[classes] @ h + like.bias[classes]

    return logits


def array(tensor: Tensor) -> Array:
    return tensor.detach().double().numpy()


@pytest.mark.parametrize("name", ["smart", "alum"])
@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("steps", [1, 2])
@pytest.mark.parametrize("epsilon", [None, 0.25])
def test_a_step_climbs_the_divergence_and_adds_it(name: str, norm: str, steps: int, epsilon: float | None) -> None:
    """SMART eqs. (1), (2) and Algorithm 1, ALUM eq. (4): from the noise that was drawn to the total."""
    like = random_classifier()
    batch, sentences, _ = ragged()
    extra = {"mu": 0.0} if name == "smart" else {}
    settings = {"weight": 0.6, "step_size": 0.2, "sigma": 0.05, "epsilon": epsilon, "norm": norm, "steps": steps}
    watched = Watched(WeightedWords(like))
    (loss,) = losses_of(METHODS[name](**settings, **extra), watched, batch, still=False)
    calls = watched.watch.passes()
    (clean,) = (call for call in calls if call.delta is None or not call.delta.any())
    moving = [call for call in calls if call is not clean]
    assert len(moving) == steps + 1
    noise, got = cut(moving[0].delta, sentences), cut(moving[-1].delta, sentences)
    assert 0.02 < np.std(np.concatenate([n.ravel() for n in noise])) < 0.09
    ends = []
    for ids, start, end in zip(sentences, noise, got, strict=True):
        logits, delta = logits_of(like, ids), start
        target = logits(np.zeros_like(start))
        for _ in range(steps):
            g = slope(lambda d, f=logits, p=target: smart_reference.symmetric_kl(p, f(d)), delta)
            delta = freelb_reference.step(delta, g, 0.2, epsilon, norm)
        np.testing.assert_allclose(end, delta, atol=2e-4)
        ends.append(logits(end))
    ce = torch.nn.functional.cross_entropy(clean.out.logits, batch["labels"]).item()
    smooth = smart_reference.mean_of(smart_reference.symmetric_kl, array(clean.out.logits), np.stack(ends))
    assert smooth > 0.01
    assert loss.total.item() == pytest.approx(smart_reference.smart_total(ce, smooth, 0.0, 0.6, 0.0), rel=1e-3)
    assert loss.total.item() == pytest.approx(
        smart_reference.alum_total(ce, array(clean.out.logits), np.stack(ends), 0.6), rel=1e-3
    )


@pytest.mark.parametrize("name", ["smart", "alum"])
def test_a_regression_is_smoothed_by_its_squared_distance(name: str) -> None:
    like = random_classifier(classes=1)
    batch = ragged(classes=1)[0]
    batch["labels"] = torch.tensor([0.3, -1.0, 2.0])
    extra = {"mu": 0.0} if name == "smart" else {}
    watched = Watched(WeightedWords(like))
    method = METHODS[name](weight=0.6, step_size=0.2, sigma=0.05, epsilon=None, **extra)
    (loss,) = losses_of(method, watched, batch, still=False)
    calls = watched.watch.passes()
    (clean,) = (call for call in calls if call.delta is None or not call.delta.any())
    moved = calls[-1] if calls[-1] is not clean else calls[-2]
    expected = torch.nn.functional.mse_loss(clean.out.logits[:, 0], batch["labels"]).item()
    expected += 0.6 * smart_reference.mean_of(smart_reference.squared, array(clean.out.logits), array(moved.out.logits))
    assert loss.total.item() == pytest.approx(expected, rel=1e-4)


def test_without_ascents_smart_is_r3f() -> None:
    """The noise alone, unclimbed."""
    batch = ragged()[0]
    watched = Watched(WeightedWords(random_classifier()))
    (loss,) = losses_of(METHODS["smart"](steps=0, mu=0.0, weight=0.6, sigma=0.3, epsilon=None), watched, batch)
    clean, noisy = sorted(watched.watch.passes(), key=lambda call: call.delta is not None and bool(call.delta.any()))
    ce = torch.nn.functional.cross_entropy(clean.out.logits, batch["labels"]).item()
    expected = smart_reference.r3f_total(ce, array(clean.out.logits), array(noisy.out.logits), 0.6)
    assert loss.total.item() == pytest.approx(expected, rel=1e-4)


def gradient(name: str, **settings: Any) -> tuple[Tensor, Any]:
    batch = ragged()[0]
    watched = Watched(WeightedWords(random_classifier()))
    losses_of(METHODS[name](epsilon=None, step_size=0.2, sigma=0.05, **settings), watched, batch)
    return watched.module.bias.grad, watched


def test_both_sides_of_smarts_divergence_are_trained() -> None:
    """Eq. (2) differentiates l_s in both arguments; ALUM's code holds the target of each KL constant."""
    for name, extra in (("smart", {"mu": 0.0}), ("alum", {})):
        got, watched = gradient(name, weight=1.0, **extra)
        labels = ragged()[0]["labels"]
        calls = watched.watch.passes()
        (clean,) = (call for call in calls if call.delta is None or not call.delta.any())
        moved = next(call for call in reversed(calls) if call is not clean)
        p, q = (call.out.logits.detach().requires_grad_() for call in (clean, moved))
        log_p, log_q = p.log_softmax(-1), q.log_softmax(-1)
        kl = torch.nn.functional.kl_div
        hold = (lambda x: x) if name == "smart" else torch.Tensor.detach
        total = torch.nn.functional.cross_entropy(p, labels)
        total = total + kl(log_q, hold(log_p), reduction="batchmean", log_target=True)
        total = total + kl(log_p, hold(log_q), reduction="batchmean", log_target=True)
        total.backward()
        torch.testing.assert_close(got, p.grad.sum(0) + q.grad.sum(0), rtol=1e-3, atol=1e-5)


def test_the_proximal_term_and_its_momentum(tiny_model: Any, batch: Any) -> None:
    """SMART eqs. (3) to (5): the divergence from what the average of earlier weights predicts, held constant."""
    model = tiny_model(dropout=0.1).train()
    method = METHODS["smart"](weight=0.0, mu=0.8, momentum=0.7, epsilon=None)
    method.set_reference_model(copy.deepcopy(model))
    earlier = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.3)
    for _ in range(2):
        held = tiny_model(dropout=0.1)
        held.load_state_dict(earlier, strict=False)
        old = array(held(batch).logits)  # in eval mode
        optimizer.zero_grad()
        watched = Watched(model)
        (loss,) = losses_of(method, watched, batch, still=False)
        (clean, *_) = watched.watch.passes()
        ce = torch.nn.functional.cross_entropy(clean.out.logits, batch["labels"]).item()
        bregman = smart_reference.mean_of(smart_reference.symmetric_kl, array(clean.out.logits), old)
        assert loss.total.item() == pytest.approx(smart_reference.smart_total(ce, 0.0, bregman, 0.0, 0.8), rel=1e-4)
        optimizer.step()
        method.after_step(model)
        for name, p in model.named_parameters():
            average = smart_reference.momentum_copy(array(earlier[name]).ravel(), array(p).ravel(), 0.7)
            earlier[name] = torch.tensor(average, dtype=torch.float32).reshape(p.shape)
    for name, p in method.reference_model.named_parameters():
        torch.testing.assert_close(p, earlier[name], rtol=1e-5, atol=1e-6)
        assert not p.requires_grad

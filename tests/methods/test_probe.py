"""The linear probe."""

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from reference.attacking import fresh, grads, run
from reference.images import buffers, image_batch

from contraverse.methods import LinearProbe
from contraverse.training import step

settings = pytest.mark.parametrize("chosen", [{}, {"attack": "pgd", "steps": 2}, {"attack": "pgd", "norm": "l2"}])


@settings
@pytest.mark.parametrize("dual", [False, True])
def test_the_encoder_is_left_as_it_is(chosen: dict[str, Any], dual: bool) -> None:
    """Trap: a frozen backbone in training mode, whose statistics move all the same."""
    method = LinearProbe(**chosen)
    model = fresh(method, dual=dual)
    model.freeze_encoder()
    before, statistics = copy.deepcopy(model.state_dict()), buffers(model)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    for seed in range(3):
        optimizer.zero_grad()
        step(method, model, image_batch(seed=seed), backward=lambda loss: loss.backward())
        optimizer.step()
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"classifier.weight", "classifier.bias"}
    assert all(torch.equal(value, statistics[name]) for name, value in model.named_buffers())
    assert model.training


@settings
@pytest.mark.parametrize("dual", [False, True])
def test_it_is_logistic_regression_on_the_features(chosen: dict[str, Any], dual: bool) -> None:
    method, images = LinearProbe(**chosen), image_batch()
    model = fresh(method, dual=dual)
    passes, total = run(method, model, images)
    bn_branch = "adversarial" if chosen else "clean"
    assert {one.bn_branch for one in passes} == {bn_branch}
    assert all((one.delta is None) == (not chosen) for one in passes)

    h = copy.deepcopy(model).eval()(images, delta=passes[-1].delta, want=("h",), bn_branch=bn_branch).h.detach()
    weight, bias = (p.detach().clone().requires_grad_() for p in model.classifier.parameters())
    expected = F.cross_entropy(h @ weight.T + bias, images["labels"])
    expected.backward()
    assert float(total) == pytest.approx(expected.item(), rel=1e-5)
    found = grads(model)
    assert set(found) == {"classifier.weight", "classifier.bias"}
    torch.testing.assert_close(found["classifier.weight"], weight.grad, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found["classifier.bias"], bias.grad, rtol=1e-4, atol=1e-5)


def test_the_attack_is_on_the_current_classifier() -> None:
    """Features are the same, and yet another classifier has other worst images."""
    method, images, found = LinearProbe(attack="pgd", steps=2), image_batch(), []
    for sign in (1, -1):
        model = fresh(method)
        with torch.no_grad():
            model.classifier.weight.mul_(sign)
        torch.manual_seed(0)
        passes, _ = run(method, model, images)
        found.append(passes[-1].delta)
    assert (found[0] - found[1]).abs().max() > 2 / 255


def test_a_text_models_dropout_is_off(tiny_model: Any, batch: Any) -> None:
    model = tiny_model(dropout=0.5).train()
    model.freeze_encoder()
    totals = [next(LinearProbe().losses(model, batch)).total for _ in range(2)]
    assert torch.equal(*totals)

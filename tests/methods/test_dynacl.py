"""DynACL's schedules and its momentum encoder; its attack is tested in test_acl.py."""

import copy

import pytest
import torch
from reference import acl_reference as reference
from reference.images import buffers
from reference.spies import Spy, drive, dual, told, views

from contraverse.errors import UserError
from contraverse.methods import DynACL
from contraverse.types import Facts


def test_strength_and_weights_follow_the_epochs() -> None:
    """From rows seen: T = 7 epochs of 10 rows, K = 2."""
    method = told(DynACL(period=2, rate=0.5), rows=10, epochs=7.0)
    for epoch in range(7):
        for row in (0, 4, 9):
            method.seen.fill_(10 * epoch + row)
            assert method.strength == pytest.approx(reference.dynacl_strength(epoch, 7, every=2))
            omega = reference.dynacl_weight(epoch, 7, every=2, rate=0.5)
            assert method.weights == pytest.approx((1 - omega, 1 + omega))
    method.seen.fill_(1000)
    assert method.strength == 0


def test_the_papers_schedule() -> None:
    method = told(DynACL(), rows=1, epochs=1000.0)
    assert (method.strength, method.weights) == (1.0, (1.0, 1.0))
    method.seen.fill_(999)
    assert method.strength == pytest.approx(0.05)
    assert method.weights == pytest.approx((1 - 2 / 3 * 0.95, 1 + 2 / 3 * 0.95))


def test_rows_are_counted_and_saved() -> None:
    method, batch = DynACL(period=1, momentum=None, steps=1), views()
    model = dual(method)
    told(method, rows=6, epochs=2.0)
    strengths = []
    for _ in range(4):
        strengths.append(method.strength)
        losses = [loss.parts["strength"] for loss in method.losses(model, batch)]
        assert [float(part) for part in losses] == [strengths[-1]] * 2
    assert strengths == [1.0, 1.0, 0.5, 0.5]
    again = told(DynACL(period=1, momentum=None), rows=6, epochs=2.0)
    again.load_state_dict(method.state_dict())
    assert again.strength == method.strength == 0
    assert told(method, rows=6, epochs=2.0).strength == 1


def test_without_a_length_there_is_no_schedule() -> None:
    method = DynACL()
    assert method.strength == 1
    with pytest.raises(UserError, match="length"):
        method.prepare(Facts(rows=3, width=2))
    with pytest.raises(ValueError, match="prepare"):
        next(method.losses(dual(method), views()))
    with pytest.raises(ValueError, match="receive"):
        next(told(method).losses(dual(method), views()))


@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_loss_and_gradients_are_the_papers(reduction: str) -> None:
    """Half of the way through, views in two encoders, of which training reaches one."""
    method, batch = DynACL(period=1, reduction=reduction), views()
    model = dual(method)
    told(method, rows=8, epochs=4.0, model=dual(method))
    with torch.no_grad():
        for parameter in method.frozen.parameters():
            parameter.mul_(0.9)
    method.seen.fill_(16)
    other, spy = copy.deepcopy(model), Spy(model)
    method.frozen, watched = Spy(method.frozen), method.frozen
    total, grads = drive(method, spy, batch)
    kept = method.frozen.passes[-1]
    assert all(p.grad is None for p in watched.parameters())
    assert not watched.training
    assert torch.equal(kept.pixels, batch["positive"]["pixel_values"])
    found = (spy.trained()[-1].delta, kept.delta)
    first, second = batch["pixel_values"], batch["positive"]["pixel_values"]
    losses = []
    for route, deltas in (("clean", (0, 0)), ("adversarial", found)):
        with torch.no_grad():
            key = watched({"pixel_values": second + deltas[1]}, want=("z",), route=route).z
        query = other({"pixel_values": first + deltas[0]}, want=("z",), route=route).z
        losses.append(reference.nt_xent(query, key, 0.5))
    expected = reference.dynacl(losses[0], losses[1], reference.dynacl_weight(2, 4, every=1))
    expected = expected * (2 if reduction == "sum" else 1)
    expected.backward()
    assert total == pytest.approx(expected.item(), rel=1e-4)
    largest = max(grad.abs().max().item() for grad in grads.values())
    for name, p in other.named_parameters():
        assert (p.grad is None) == (name not in grads)
        if p.grad is not None:
            torch.testing.assert_close(grads[name], p.grad, rtol=2e-3, atol=1e-4 * largest, msg=name)


def test_the_momentum_encoder_follows_statistics_included() -> None:
    method = DynACL(momentum=0.8)
    model = dual(method)
    told(method, model=dual(method))
    with torch.no_grad():
        for value in [*method.frozen.parameters(), *model.buffers()]:
            value.add_(1)
    before = {name: value.clone() for name, value in method.frozen.state_dict().items()}
    method.after_step(model)
    for name, value in method.frozen.state_dict().items():
        new = model.state_dict()[name]
        expected = reference.ema(before[name], new, 0.8) if value.is_floating_point() else new
        torch.testing.assert_close(value, expected, msg=name)
    assert any("running_var" in name for name in before)
    alone = DynACL(momentum=None)
    assert (alone.wants_copy, alone.cost) == (False, "32F")
    alone.after_step(model)


def test_the_momentum_encoder_remembers_no_batch() -> None:
    method = DynACL()
    model = dual(method)
    told(method, model=model)
    before = buffers(method.frozen)
    drive(method, model, views())
    assert all(torch.equal(value, before[name]) for name, value in buffers(method.frozen).items())

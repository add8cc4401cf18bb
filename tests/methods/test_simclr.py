"""SimCLR against NT-Xent in plain loops: loss, gradients, and which statistics it learns."""

import pytest
import torch
from reference.acl_reference import s2s
from reference.images import buffers
from reference.spies import Spy, drive, dual, views
from torch.utils.flop_counter import FlopCounterMode

from contraverse.methods import SimCLR


@pytest.mark.parametrize("temperature", [0.01, 0.05, 0.1, 0.5, 1.0])
def test_loss_and_gradients_are_the_loops(temperature: float) -> None:
    """Trap 13: in exponential form it is NaN below .05."""
    method, batch = SimCLR(temperature=temperature), views()
    model, other = dual(method), dual(method)
    total, grads = drive(method, model, batch)
    encode = lambda pixels, bn_branch: other({"pixel_values": pixels}, want=("z",), bn_branch=bn_branch).z  # noqa: E731
    expected = s2s(encode, batch["pixel_values"], batch["positive"]["pixel_values"], temperature)
    expected.backward()
    assert total == pytest.approx(expected.item(), rel=1e-4)
    assert set(grads) == {name for name, p in other.named_parameters() if p.grad is not None}
    largest = max(grad.abs().max().item() for grad in grads.values())
    for name, p in other.named_parameters():
        if p.grad is not None:
            torch.testing.assert_close(grads[name], p.grad, rtol=2e-3, atol=1e-4 * largest, msg=name)


def test_one_pass_of_both_views_through_the_clean_set() -> None:
    method, batch = SimCLR(), views()
    model = dual(method)
    before, spy = buffers(model), Spy(model)
    drive(method, spy, batch)
    (seen,) = spy.passes
    assert seen.delta is None
    assert torch.equal(seen.pixels, torch.cat([batch["pixel_values"], batch["positive"]["pixel_values"]]))
    changed = {name for name, value in buffers(model).items() if not torch.equal(value, before[name])}
    assert changed == {name for name in before if ".clean." in name}
    assert any(name.startswith("heads.") for name in changed)


def test_a_step_lowers_the_loss() -> None:
    method, batch = SimCLR(), views()
    model = dual(method)
    before, _ = drive(method, model, batch)
    torch.optim.SGD(model.parameters(), lr=0.01).step()
    assert drive(method, model, batch)[0] < before


def test_cost_of_an_image() -> None:
    method, batch = SimCLR(), views(2, 16)
    model = dual(method)
    with FlopCounterMode(display=False) as forward:
        model(batch, want=("z",))
    with FlopCounterMode(display=False) as step:
        drive(method, model, batch)
    assert step.get_total_flops() / forward.get_total_flops() == pytest.approx(6, rel=0.03)


def test_temperature_is_above_zero() -> None:
    with pytest.raises(ValueError, match="temperature"):
        SimCLR(temperature=0)

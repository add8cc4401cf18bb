"""DeACL against its loss in plain loops; its attack is tested in test_acl.py."""

import copy

import pytest
import torch
from reference import acl_reference as reference
from reference.images import buffers
from reference.spies import Spy, drive, dual, told, views

from contraverse.methods import DeACL


@pytest.mark.parametrize("weight", [0.0, 2.0, 0.7])
def test_loss_and_gradients_are_the_papers(weight: float) -> None:
    method, batch = DeACL(weight=weight), views()
    model = dual(method)
    teacher = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in teacher.parameters():
            parameter.mul_(0.9)
    told(method, model=teacher)
    other, spy = copy.deepcopy(model), Spy(model)
    total, grads = drive(method, spy, batch)
    delta = spy.trained()[-1].delta
    x = batch["pixel_values"]
    assert (delta[:3] == 0).all()
    h = other({"pixel_values": torch.cat([x, x + delta[3:]])}, want=("h",), bn_branch="adversarial").h
    target = teacher.eval()({"pixel_values": x}, want=("h",), bn_branch="clean").h.detach()
    expected = reference.deacl(h[:3], h[3:], target, weight)
    expected.backward()
    assert total == pytest.approx(expected.item(), rel=1e-4)
    largest = max(grad.abs().max().item() for grad in grads.values())
    for name, p in other.named_parameters():
        assert (p.grad is None) == (name not in grads)
        if p.grad is not None:
            torch.testing.assert_close(grads[name], p.grad, rtol=2e-3, atol=1e-4 * largest, msg=name)


def test_the_teacher_stays_as_it_was() -> None:
    method = DeACL()
    model = dual(method)
    told(method, model=model)
    before = {name: value.clone() for name, value in method.reference_model.state_dict().items()}
    drive(method, model, views())
    torch.optim.SGD(model.parameters(), lr=0.1).step()
    method.after_step(model)
    assert all(torch.equal(value, before[name]) for name, value in method.reference_model.state_dict().items())
    assert all(p.grad is None for p in method.reference_model.parameters())
    assert {*buffers(method.reference_model)} <= set(before) | {"_mean", "_std"}


def test_a_student_that_is_its_teacher_still_has_something_to_climb() -> None:
    """At zero the gradient of the cosine vanishes; the random start is elsewhere."""
    method = DeACL(steps=1)
    model = dual(method).eval()
    told(method, model=model)
    method.reference_model.load_state_dict(model.state_dict())
    spy = Spy(model)
    (parts,) = (loss.parts for loss in method.losses(spy, views()))
    assert int(parts["zero_grad_rows"]) == 0
    assert float(parts["rel_perturbation_norm"]) > 0


def test_without_a_teacher_there_is_no_step() -> None:
    method = DeACL()
    with pytest.raises(ValueError, match="set_reference_model"):
        next(method.losses(dual(method), views()))

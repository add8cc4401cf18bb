"""The gradient that attacks follow: every digit of float32, any scale of loss in float16, and what counts as dead."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from reference.images import image_batch, tiny
from torch import Tensor

from contraverse.attacks import (
    NormBall,
    Objective,
    apgd,
    count_zero_grad_rows,
    fgm,
    input_gradient,
    perturbation_inputs,
    pgd,
)
from contraverse.attacks.objective import LEVEL
from contraverse.models import TextModel
from contraverse.types import Inputs


class Narrow(torch.autograd.Function):
    """What arrives is held in float16 on its way back, as through a layer under autocast."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return grads[0].half().to(grads[0].dtype)


def leaf(rows: int = 5) -> tuple[Tensor, Inputs]:
    delta = torch.randn(rows, 3, 4, generator=torch.Generator().manual_seed(2)).requires_grad_()
    return delta, Inputs(torch.zeros(rows, 3, 4), torch.ones(rows, 3, 1, dtype=torch.bool))


def network(delta: Tensor, *, narrow: bool = False) -> Tensor:
    """Outputs (B, 6), each row of its own row."""
    weight = torch.randn(12, 6, generator=torch.Generator().manual_seed(3))
    out = (delta.flatten(1) @ weight).tanh()
    return Narrow.apply(out) if narrow else out


@pytest.mark.parametrize("told", [True, False])
def test_single_precision_keeps_every_digit(told: bool) -> None:
    """Powers of two change none, of a sum, a mean, and a loss in which rows meet."""
    delta, _ = leaf()
    for loss_of in (
        lambda out: out.square().sum(1),
        lambda out: (out * 1e-7).exp().sum(1).mean(),
        lambda out: F.cross_entropy(F.normalize(out) @ F.normalize(out).T / 0.05, torch.arange(5)),
    ):
        out = network(delta)
        loss = loss_of(out)
        (expected,) = torch.autograd.grad(loss.sum(), delta, retain_graph=True)
        assert torch.equal(input_gradient(Objective(loss, out) if told else loss, delta), expected)


def test_a_network_keeps_every_digit(tiny_model: Callable[..., TextModel], batch: Any) -> None:
    model = tiny_model(dropout=0.0)
    delta = torch.zeros_like(perturbation_inputs(model, batch).values).requires_grad_()
    logits = model(batch, delta=delta).logits
    loss = F.cross_entropy(logits, batch["labels"])
    (expected,) = torch.autograd.grad(loss, delta, retain_graph=True)
    assert torch.equal(input_gradient(Objective(loss, logits), delta), expected)


@pytest.mark.parametrize("scale", [1e-12, 1e-6, 1.0, 1e6])
def test_the_scale_of_a_row_does_not_matter(scale: float) -> None:
    """Through a part that rounds to float16: rows of very different losses beside each other."""
    delta, _ = leaf()
    scales = scale * torch.tensor([1.0, 1e-3, 1e-6, 1e3, 1e-9])
    (exact,) = torch.autograd.grad((network(delta).square().sum(1) * scales).sum(), delta)
    out = network(delta, narrow=True)
    got = input_gradient(Objective((out.square().sum(1) * scales).mean(), out), delta)
    torch.testing.assert_close(got * len(scales), exact, rtol=2e-2, atol=0)
    out = network(delta, narrow=True)
    (today,) = torch.autograd.grad((out.square().sum(1) * scales).mean(), delta)
    assert (count_zero_grad_rows(today, leaf()[1]) > 0) | ~today.isfinite().all()


def test_rows_that_meet_in_the_network_share_a_factor() -> None:
    """Batch norm in training mode: the gradient at a row is of all rows' losses."""
    delta, _ = leaf()
    scales = torch.tensor([1.0, 1e-3, 1e-1, 1e2, 1e-2])

    def out_of(delta: Tensor) -> Tensor:
        out = network(delta)
        return out - out.mean(0)

    (exact,) = torch.autograd.grad((out_of(delta).pow(3).sum(1) * scales).sum(), delta)
    for apart in (True, False):
        out = out_of(delta)
        got = input_gradient(Objective(out.pow(3).sum(1) * scales, out, apart), delta)
        assert torch.allclose(got, exact, rtol=1e-5, atol=1e-8) != apart


def test_what_goes_back_through_the_network_has_one_level() -> None:
    delta, _ = leaf()
    seen: list[Tensor] = []
    out = network(delta)
    mixed = out * 1.0
    mixed.register_hook(lambda grad: seen.append(grad))
    loss = mixed.square().sum(1) * torch.tensor([1e-20, 1e-3, 0.0, 1e5, 1.0])
    got = input_gradient(Objective(loss, mixed), delta)
    largest = seen[-1].abs().amax(1)
    assert ((largest >= LEVEL) & (largest < 2 * LEVEL)).tolist() == [True, True, False, True, True]
    assert got[2].eq(0).all()


def test_outputs_in_half_precision_are_refused() -> None:
    delta, _ = leaf()
    out = network(delta).half()
    with pytest.raises(ValueError, match="cast them before the loss"):
        input_gradient(Objective(out.float().sum(), out), delta)


def test_a_perturbation_in_half_precision_has_a_gradient_in_single() -> None:
    """Of a model whose weights are float16; divided there, small rows would be zero again."""
    delta = leaf()[0].detach().half().requires_grad_()
    out = network(delta.float())
    grad = input_gradient(Objective(out.square().sum(1) * 1e-9, out), delta)
    assert (grad.dtype, bool((grad != 0).all())) == (torch.float32, True)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_row_that_is_not_finite_leaves_the_others_alone(bad: float) -> None:
    delta, inputs = leaf()
    out = network(delta)
    loss = out.square().sum(1) * torch.tensor([1.0, bad, 1.0, 1.0, 1.0])
    grad = input_gradient(Objective(loss, out), delta)
    assert grad.flatten(1).isfinite().all(1).tolist() == [True, False, True, True, True]
    assert int(count_zero_grad_rows(grad, inputs)) == 1


@pytest.mark.parametrize("attack", ["fgm", "last", "pgd", "apgd"])
def test_every_attack_reads_the_outputs(attack: str) -> None:
    """A loss of 1e-12 through float16: told of the outputs, all of them go where they would in float32."""
    _, inputs = leaf()
    run: Any = {"fgm": fgm, "last": partial(pgd, keep="last"), "pgd": pgd, "apgd": apgd}[attack]
    steps = {} if attack == "fgm" else {"steps": 3}
    target = network(torch.ones(5, 3, 4))

    def loss_of(delta: Tensor, narrow: bool = True) -> Objective:
        out = network(delta, narrow=narrow)
        return Objective(-1e-12 * (out - target).square().sum(1), out)

    ball = NormBall(0.5, 0.2)
    rough = run(loss_of, ball, inputs, **steps)
    exact = run(lambda delta: loss_of(delta, narrow=False), ball, inputs, **steps)
    torch.testing.assert_close(rough.delta, exact.delta, rtol=1e-2, atol=1e-3)
    assert int(rough.zero_grad_rows) == 0
    assert int(run(lambda delta: loss_of(delta).loss, ball, inputs, **steps).zero_grad_rows) > 0


def test_a_sentence_that_underflows_is_dead_and_padding_is_not_counted() -> None:
    inputs = Inputs(
        torch.zeros(4, 6, 2), torch.tensor([[1] * 6, [1] * 6, [1, 1, 0, 0, 0, 0], [1] * 6]).bool()[..., None]
    )
    grad = torch.ones(4, 6, 2)
    grad[0, 1:] = 0  # what is left at [CLS]
    grad[1, 4:] = 0  # a third of the coordinates
    grad[2, 2:] = 0
    grad[3, 0, 0] = torch.nan
    assert int(count_zero_grad_rows(grad, inputs)) == 2
    assert int(count_zero_grad_rows(grad[2:3], Inputs(*(x[2:3] for x in inputs[:2])))) == 0


def test_an_image_may_have_true_zeros() -> None:
    """A network that reads a corner: sound there, zero elsewhere; dead is the row that is zero everywhere."""
    model = tiny()
    inputs = perturbation_inputs(model, image_batch())
    assert inputs.low is not None
    grad = torch.zeros_like(inputs.values)
    grad[:3, :, 0, 0] = 1e-3
    assert int(count_zero_grad_rows(grad, inputs)) == 1

"""APGD against Algorithm 1 in plain loops, closed forms and PGD; and losses that do not saturate."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from reference import apgd_reference, equations
from reference.climbing import Quadratic, everywhere, longer, per_row
from torch import Tensor

from contraverse.attacks import NormBall, apgd, perturbation_inputs, pgd
from contraverse.attacks.auto_pgd import checkpoints, dlr, margin
from contraverse.functional import norm
from contraverse.models import TextModel
from contraverse.types import Inputs


class Bowl:
    """Loss of row i: ``sum_j slope_ij d_j - curve_ij d_j^2 / 2``, its summit inside or outside the ball."""

    def __init__(self, slope: Tensor, curve: Tensor) -> None:
        self.slope, self.curve, self.asked = slope, curve, list[Tensor]()

    def __call__(self, delta: Tensor) -> Tensor:
        self.asked.append(delta.detach().clone())
        return (self.slope * delta - self.curve * delta.square() / 2).flatten(1).sum(1)


@pytest.mark.parametrize("kind", ["l2", "linf"])
@pytest.mark.parametrize("steps", [1, 2, 5, 10, 40])
@pytest.mark.parametrize("eta", [2.0, 0.3])
def test_every_iterate_is_that_of_algorithm_1(kind: Any, steps: int, eta: float) -> None:
    """Steep bowls make a row overshoot and go back, flat ones let it run to the boundary: at once, in one batch.

    Directions are computed in fp32, and a step back and forth over a summit magnifies their rounding.
    """
    torch.set_default_dtype(torch.float64)
    try:
        where = everywhere(6, 2, 3)
        slope = torch.randn_like(where.values)
        curve = torch.rand_like(where.values) * torch.logspace(-1, 1.5, 6).reshape(6, 1, 1)
        loss, epsilon = Bowl(slope, curve), 0.8
        found = apgd(loss, NormBall(epsilon, eta * epsilon, kind), where, steps=steps)
    finally:
        torch.set_default_dtype(torch.float32)
    halved = 0
    for row in range(6):
        a, c = slope[row].numpy(), curve[row].numpy()
        expected = apgd_reference.apgd(
            lambda x, a=a, c=c: float((a * x - c * x**2 / 2).sum()),
            lambda x, a=a, c=c: a - c * x,
            np.zeros((2, 3)),
            epsilon,
            eta * epsilon,
            steps,
            kind,
        )
        assert len(loss.asked) == len(expected.looked_at) == steps + 1
        for asked, at in zip(loss.asked, expected.looked_at, strict=True):
            np.testing.assert_allclose(asked[row].numpy(), at, atol=1e-3)
        np.testing.assert_allclose(found.delta[row].numpy(), expected.best, atol=1e-3)
        halved += expected.eta < eta * epsilon
    assert steps < 10 or halved


def test_checkpoints_are_the_papers() -> None:
    assert checkpoints(100) == [22, 41, 57, 70, 80, 87, 93, 99]
    for steps in (1, 2, 3, 5, 7, 10, 33, 50, 1000):
        assert checkpoints(steps) == [at for at in apgd_reference.w(steps) if 0 < at < steps]


@pytest.mark.parametrize("kind", ["l2", "linf"])
@pytest.mark.parametrize("random_start", [False, True])
def test_the_worst_of_a_linear_model_is_known(kind: Any, random_start: bool) -> None:
    """The largest ``g . delta`` is ``epsilon ||g||_2`` in an L2 ball and ``epsilon ||g||_1`` in an Linf ball."""
    where = everywhere(5, 4, 6)
    slope = torch.randn_like(where.values)
    attack = apgd(Bowl(slope, torch.zeros_like(slope)), NormBall(0.7, 1.4, kind), where, steps=10,
                  random_start=random_start)  # fmt: skip
    reached = (attack.delta * slope).flatten(1).sum(1)
    known = 0.7 * (slope.flatten(1).norm(dim=1) if kind == "l2" else slope.flatten(1).abs().sum(1))
    assert (reached >= 0.99 * known).all()


def test_the_farthest_point_of_the_ball_is_found() -> None:
    where = everywhere()
    target = torch.randn_like(where.values)
    delta = apgd(Quadratic(target), NormBall(0.5, 1.0), where, steps=20).delta
    np.testing.assert_allclose(delta, -0.5 * equations.direction(target.numpy(), "l2", "sequence"), atol=5e-3)


@pytest.mark.parametrize("kind", ["l2", "linf"])
def test_it_is_no_weaker_than_pgd_for_the_same_cost(
    tiny_model: Callable[..., TextModel], batch: Any, kind: Any
) -> None:
    """On six random encoders, L2 and Linf, in a ball where the loss is far from linear: mean loss over all rows."""
    total = {"pgd": 0.0, "apgd": 0.0}
    epsilon = 2.0 if kind == "l2" else 0.2
    for architecture in ("bert", "albert", "roberta", "distilbert", "electra", "mpnet"):
        model = tiny_model(architecture, dropout=0.0)
        where, loss = perturbation_inputs(model, batch), per_row(model, batch)
        slow = pgd(loss, NormBall(epsilon, 2.5 * epsilon / 10, kind), where, steps=10)
        total["pgd"] += float(loss(slow.delta).detach().mean())
        fast = apgd(loss, NormBall(epsilon, 2 * epsilon, kind), where, steps=10)
        total["apgd"] += float(loss(fast.delta).detach().mean())
    assert total["apgd"] >= total["pgd"]


def test_it_costs_what_pgd_costs(tiny_model: Callable[..., TextModel], batch: Any) -> None:
    model, forwards = tiny_model(dropout=0.0), list[bool]()
    model.encoder.base_model.encoder.register_forward_hook(lambda *a: forwards.append(torch.is_grad_enabled()))
    apgd(per_row(model, batch), NormBall(0.3, 0.6), perturbation_inputs(model, batch), steps=4, restarts=2)
    assert forwards == [True, True, True, True, False] * 2
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("kind", ["l2", "linf"])
def test_it_never_leaves_the_ball_nor_the_real_tokens(
    tiny_model: Callable[..., TextModel], batch: Any, kind: Any
) -> None:
    model, asked = tiny_model(dropout=0.0), list[Tensor]()
    where, rows = perturbation_inputs(model, batch), per_row(model, batch)

    def loss(delta: Tensor) -> Tensor:
        asked.append(delta.detach())
        return rows(delta)

    attack = apgd(loss, NormBall(0.4, 0.8, kind), where, steps=8, restarts=2)
    for delta in (*asked, attack.delta):
        assert (norm(delta, kind) <= 0.4 * (1 + 1e-5)).all()
        assert (delta[~where.mask.expand_as(delta)] == 0).all()


def test_a_row_is_attacked_alike_whatever_rows_and_padding_are_beside_it(
    tiny_model: Callable[..., TextModel], batch: Any
) -> None:
    model = tiny_model(dropout=0.0)
    ball = NormBall(2.0, 4.0)
    together = apgd(per_row(model, batch), ball, perturbation_inputs(model, batch), steps=6).delta
    alone = {name: value[1:2] for name, value in longer(batch, 3).items()}
    single = apgd(per_row(model, alone), ball, perturbation_inputs(model, alone), steps=6).delta
    torch.testing.assert_close(single[0, :9], together[1], atol=1e-4, rtol=1e-4)


def test_a_radius_of_its_own_for_each_row() -> None:
    where, radius = everywhere(), torch.tensor([0.1, 0.5, 2.0]).reshape(3, 1, 1)
    slope = torch.randn_like(where.values)
    found = apgd(Bowl(slope, torch.zeros_like(slope)), NormBall(radius, 2 * radius), where, steps=5)
    torch.testing.assert_close(norm(found.delta), radius)


def test_restarts_keep_each_rows_worst() -> None:
    where = everywhere(8, 2, 2)
    wave = lambda d: (7 * d).sin().flatten(1).sum(1) + d.flatten(1).sum(1) * 0.1  # noqa: E731
    worst = []
    for restarts in (1, 4):
        torch.manual_seed(0)
        worst.append(wave(apgd(wave, NormBall(2.0, 0.2), where, steps=3, restarts=restarts).delta))
    assert (worst[1] >= worst[0]).all()
    assert (worst[1] > worst[0] + 0.01).any()


@pytest.mark.parametrize("factor", [0.0, float("nan")])
def test_a_dead_gradient_stays_at_zero_and_counts_each_step(factor: float) -> None:
    attack = apgd(lambda d: (d * factor).sum((1, 2)), NormBall(0.3, 0.6), everywhere(), steps=3)
    assert (attack.delta == 0).all()
    assert int(attack.zero_grad_rows) == 9


def test_a_loss_that_overflows_is_kept_as_a_success() -> None:
    def loss(delta: Tensor) -> Tensor:
        return delta.sum((1, 2)) + torch.where(norm(delta.detach()).flatten() > 0.2, float("nan"), 0.0)

    delta = apgd(loss, NormBall(0.3, 0.1), everywhere(), steps=5).delta
    assert (norm(delta) > 0.2).all()


@pytest.mark.parametrize(("steps", "restarts"), [(0, 1), (1, 0)])
def test_counts_below_one_are_refused(steps: int, restarts: int) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        apgd(lambda d: d.sum((1, 2)), NormBall(0.3, 0.1), everywhere(), steps=steps, restarts=restarts)


def test_a_ball_that_rows_share_is_refused() -> None:
    with pytest.raises(ValueError, match="each row"):
        apgd(lambda d: d.sum((1, 2)), NormBall(0.3, 0.1, scope="batch"), everywhere(), steps=2)


def test_margin_and_dlr_are_those_of_the_equations() -> None:
    logits, labels = torch.randn(20, 5), torch.randint(5, (20,))
    for row, label, m, ratio in zip(logits, labels, margin(logits, labels), dlr(logits, labels), strict=True):
        others = [float(z) for i, z in enumerate(row) if i != label]
        top = sorted(map(float, row), reverse=True)
        assert float(m) == pytest.approx(max(others) - float(row[label]), abs=1e-6)
        assert float(ratio) == pytest.approx((max(others) - float(row[label])) / (top[0] - top[2]), abs=1e-5)
    torch.testing.assert_close(dlr(1e4 * logits + 7, labels), dlr(logits, labels), atol=1e-3, rtol=1e-3)


def test_they_have_a_gradient_where_cross_entropy_has_none() -> None:
    logits, labels = torch.tensor([[900.0, 100.0, -300.0]]), torch.tensor([0])
    for loss, alive in ((lambda z, y: F.cross_entropy(z, y), False), (margin, True), (dlr, True)):
        z = logits.clone().requires_grad_()
        (grad,) = torch.autograd.grad(loss(z, labels).sum(), z)
        assert bool((grad != 0).any()) == alive


def test_of_two_classes_cross_entropy_and_margin_lead_the_same_way() -> None:
    """Why APGD on two classes climbs the margin alone: the cross-entropy rises with it, and only with it."""
    weight, bias = torch.randn(2, 20, dtype=torch.float64), torch.randn(2, dtype=torch.float64)
    where = Inputs(torch.randn(6, 4, 5, dtype=torch.float64), torch.ones(6, 4, 1, dtype=torch.bool))
    labels = torch.tensor([0, 1, 0, 1, 0, 1])

    def bent(delta: Tensor) -> Tensor:
        return (where.values + delta).flatten(1).tanh() @ weight.T + bias

    found = [
        apgd(lambda d, of=of: of(bent(d), labels), NormBall(1.0, 2.0), where, steps=12).delta
        for of in (margin, lambda z, y: F.cross_entropy(z, y, reduction="none"))
    ]
    torch.testing.assert_close(found[0], found[1], atol=1e-3, rtol=1e-3)

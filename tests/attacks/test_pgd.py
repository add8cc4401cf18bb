"""PGD: its ball, its counts, and that what it keeps is the worst that it saw."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from reference import equations
from reference.climbing import Quadratic, everywhere, mean, per_row
from torch import Tensor

from contraverse.attacks import NormBall, perturbation_inputs, pgd
from contraverse.functional import norm
from contraverse.models import TextModel

SCOPES = ("sequence", "token", "batch")


@pytest.fixture
def model(tiny_model: Callable[..., TextModel]) -> TextModel:
    return tiny_model(dropout=0.0)


@pytest.mark.parametrize("kind", ["l2", "linf"])
@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("random_start", [False, True])
def test_pgd_never_leaves_the_ball(kind: Any, scope: Any, random_start: bool) -> None:
    where = everywhere()
    loss = Quadratic(torch.randn_like(where.values))
    ball = NormBall(0.4, 0.25, kind, scope)
    attack = pgd(loss, ball, where, steps=4, restarts=3, random_start=random_start)
    assert len(loss.asked) == 15
    for delta in (*loss.asked, attack.delta):
        assert (norm(delta, kind, scope) <= 0.4 * (1 + 1e-5)).all()


def test_rows_kept_from_different_steps_still_fit_a_batch_ball() -> None:
    """Row 0 is worst at the first iterate, row 1 at the last: put together they must not exceed the batch's norm."""
    where = everywhere(2, 1, 2)
    calls = iter(range(10))

    def loss(delta: Tensor) -> Tensor:
        i = next(calls)
        bonus = torch.tensor([10.0 if i == 1 else 0.0, 10.0 if i == 3 else 0.0])
        pull = torch.tensor([1.0, 0.01]) if i < 1 else torch.tensor([0.0, 1.0])
        return bonus + (delta.sum((1, 2)) * pull)

    delta = pgd(loss, NormBall(1.0, 1.0, "l2", "batch"), where, steps=3).delta
    assert norm(delta, "l2", "batch").item() <= 1 + 1e-5


@pytest.mark.parametrize("steps", [1, 2, 3])
@pytest.mark.parametrize("restarts", [1, 2])
def test_pgd_takes_one_gradient_a_step_and_scores_the_end(
    model: TextModel, batch: Any, steps: int, restarts: int
) -> None:
    """T4: K gradients and K ascents, then one forward without a gradient."""
    forwards: list[bool] = []
    backwards: list[int] = []
    model.encoder.base_model.encoder.register_forward_hook(lambda *a: forwards.append(torch.is_grad_enabled()))
    rows = per_row(model, batch)

    def loss(delta: Tensor) -> Tensor:
        if delta.requires_grad and torch.is_grad_enabled():
            delta.register_hook(lambda grad: backwards.append(1))
        return rows(delta)

    where = perturbation_inputs(model, batch)
    pgd(loss, NormBall(0.3, 0.1), where, steps=steps, restarts=restarts)
    assert len(backwards) == steps * restarts
    assert forwards == [*[True] * steps, False] * restarts


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_pgd_makes_one_ascent_a_step(steps: int) -> None:
    """T4: without a limit, K steps along a constant gradient travel K step sizes."""
    where = everywhere()
    slope = torch.ones_like(where.values)
    delta = pgd(lambda d: (d * slope).flatten(1).sum(1), NormBall(None, 0.2), where, steps=steps).delta
    torch.testing.assert_close(norm(delta), torch.full((3, 1, 1), 0.2 * steps))


def test_pgd_finds_the_farthest_point_of_the_ball() -> None:
    where = everywhere()
    target = torch.randn_like(where.values)
    delta = pgd(Quadratic(target), NormBall(0.5, 0.2), where, steps=5).delta
    np.testing.assert_allclose(delta, -0.5 * equations.direction(target.numpy(), "l2", "sequence"), atol=1e-5)
    corner = pgd(Quadratic(target), NormBall(0.5, 0.2, "linf"), where, steps=5).delta
    torch.testing.assert_close(corner, -0.5 * target.sign())


@pytest.mark.parametrize("step_size", [0.02, 1.0, 30.0])
def test_the_loss_never_falls_below_the_clean_one(model: TextModel, batch: Any, step_size: float) -> None:
    """Also where a step is far too long: the worst of all iterates is kept, row by row, and the start is one."""
    where, loss = perturbation_inputs(model, batch), per_row(model, batch)
    before = loss(torch.zeros_like(where.values))
    delta = pgd(loss, NormBall(30.0, step_size), where, steps=3).delta
    assert (loss(delta) >= before - 1e-5).all()


def test_each_row_keeps_its_own_worst_iterate() -> None:
    """The loss of row i is highest after i + 1 steps of .1 along the slope."""
    where = everywhere()
    best = torch.tensor([0.1, 0.2, 0.3])

    def loss(delta: Tensor) -> Tensor:
        distance = delta.sum((1, 2)) / 20**0.5
        return distance * 1e-3 - (distance.detach() - best).abs()

    delta = pgd(loss, NormBall(None, 0.1), where, steps=3).delta
    torch.testing.assert_close(norm(delta).flatten(), best)


def test_a_scalar_loss_keeps_the_worst_batch(model: TextModel, batch: Any) -> None:
    where, loss = perturbation_inputs(model, batch), mean(model, batch)
    delta = pgd(loss, NormBall(0.5, 0.3), where, steps=3).delta
    assert delta.shape == where.values.shape
    assert loss(delta) > loss(torch.zeros_like(delta))


def test_more_restarts_never_lower_the_worst_loss(model: TextModel, batch: Any) -> None:
    where, loss = perturbation_inputs(model, batch), per_row(model, batch)
    ball, last = NormBall(3.0, 1.0), None
    for restarts in (1, 2, 4):
        torch.manual_seed(7)
        worst = loss(pgd(loss, ball, where, steps=2, restarts=restarts).delta).detach()
        if last is not None:
            assert (worst >= last - 1e-5).all()
        last = worst


def test_the_first_restart_starts_at_zero_and_the_others_do_not() -> None:
    where = everywhere()
    loss = Quadratic(torch.randn_like(where.values))
    pgd(loss, NormBall(0.4, 0.1), where, steps=1, restarts=3)
    assert [bool((loss.asked[i] == 0).all()) for i in (0, 2, 4)] == [True, False, False]
    loss = Quadratic(torch.randn_like(where.values))
    pgd(loss, NormBall(0.4, 0.1), where, steps=1, random_start=True)
    assert not (loss.asked[0] == 0).all()


def test_more_steps_find_a_loss_as_high(model: TextModel, batch: Any) -> None:
    where, loss = perturbation_inputs(model, batch), per_row(model, batch)
    one, many = (loss(pgd(loss, NormBall(1.0, 0.4), where, steps=k).delta) for k in (1, 6))
    assert (many >= one - 1e-5).all()


def test_a_loss_that_overflows_is_kept_as_a_success() -> None:
    where = everywhere()

    def loss(delta: Tensor) -> Tensor:
        blown = torch.where(norm(delta.detach()).flatten() > 0.15, float("inf"), 0.0)
        return delta.sum((1, 2)) + blown

    delta = pgd(loss, NormBall(0.3, 0.1), where, steps=3).delta
    assert (norm(delta) > 0.15).all()


@pytest.mark.parametrize(("steps", "restarts"), [(0, 1), (1, 0), (-1, 1)])
def test_counts_below_one_are_refused(steps: int, restarts: int) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        pgd(lambda d: d.sum((1, 2)), NormBall(0.3, 0.1), everywhere(), steps=steps, restarts=restarts)


@pytest.mark.parametrize("factor", [0.0, float("nan")])
def test_pgd_with_a_dead_gradient_stays_at_zero_and_counts_each_step(factor: float) -> None:
    where = everywhere()
    attack = pgd(lambda d: (d * factor).sum((1, 2)), NormBall(0.3, 0.1), where, steps=3)
    assert (attack.delta == 0).all()
    assert int(attack.zero_grad_rows) == 9

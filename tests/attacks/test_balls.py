"""Where a perturbation may live: padding, radius, random starts."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import equations
from torch import Tensor

from contraverse.attacks import NormBall
from contraverse.functional import norm
from contraverse.types import Inputs

CASES = [(k, s) for k in ("l2", "linf") for s in ("sequence", "token", "batch")]
each = pytest.mark.parametrize(("kind", "scope"), CASES)


def inputs(rows: int = 3, tokens: int = 5, width: int = 4) -> Inputs:
    """Row i has i fewer real tokens; the last row is all padding."""
    lengths = torch.tensor([tokens - i for i in range(rows - 1)] + [0])
    mask = (torch.arange(tokens) < lengths[:, None]).unsqueeze(-1)
    return Inputs(torch.randn(rows, tokens, width), mask)


def inside(delta: Tensor, epsilon: float, kind: Any, scope: Any, where: Inputs) -> bool:
    free = (delta * ~where.mask == 0).all()
    return bool(free and (norm(delta, kind, scope) <= epsilon * (1 + 1e-5)).all())


@each
def test_starts_at_zero_with_a_leaf(kind: Any, scope: Any) -> None:
    delta = NormBall(0.3, 0.1, kind, scope).init(inputs())
    assert delta.is_leaf
    assert delta.requires_grad
    assert delta.shape == (3, 5, 4)
    assert (delta == 0).all()


@each
def test_a_random_start_is_inside_varies_and_avoids_padding(kind: Any, scope: Any) -> None:
    where = inputs()
    ball = NormBall(0.3, 0.1, kind, scope)
    first, second = ball.init(where, random=True), ball.init(where, random=True)
    for delta in (first, second):
        assert delta.is_leaf
        assert delta.requires_grad
        assert inside(delta, 0.3, kind, scope, where)
        assert delta.norm() > 0
    assert not torch.equal(first, second)


def test_a_random_start_is_uniform_in_the_ball() -> None:
    """In n dimensions the share of draws within radius r is (r / epsilon)^n; signs are even."""
    where = Inputs(torch.zeros(4000, 1, 3), torch.ones(4000, 1, 1, dtype=torch.bool))
    delta = NormBall(2.0, 1.0).init(where, random=True).detach()
    radius = norm(delta).flatten()
    for r in (0.8, 1.4, 1.8):
        assert (radius <= r).float().mean().item() == pytest.approx((r / 2) ** 3, abs=0.03)
    assert delta.mean(0).abs().max() < 0.05
    cube = NormBall(2.0, 1.0, "linf").init(where, random=True).detach()
    assert cube.std().item() == pytest.approx(2 / 3**0.5, rel=0.03)


def test_the_dimension_counts_only_real_tokens() -> None:
    """One real token of three: the radius follows r^3, not r^9."""
    mask = torch.tensor([True, False, False]).reshape(1, 3, 1).expand(4000, 3, 1)
    delta = NormBall(1.0, 1.0).init(Inputs(torch.zeros(4000, 3, 3), mask), random=True).detach()
    assert (norm(delta) <= 0.5).float().mean().item() == pytest.approx(0.125, abs=0.03)


def test_a_random_start_without_a_limit_is_refused() -> None:
    with pytest.raises(ValueError, match="epsilon"):
        NormBall(None, 0.1).init(inputs(), random=True)


@each
@pytest.mark.parametrize("epsilon", [0.05, 0.3, None])
def test_ascend_is_step_then_project(kind: Any, scope: Any, epsilon: float | None) -> None:
    where = inputs()
    grad = torch.randn_like(where.values)
    delta = NormBall(0.2, 0.1, kind, scope).init(where, random=True)
    before, grad_before = delta.detach().clone(), grad.clone()
    got = NormBall(epsilon, 0.1, kind, scope).step(delta, grad, where)
    step = 0.1 * equations.direction((grad * where.mask).numpy(), kind, scope)
    expected = equations.project(before.numpy() + step, epsilon, kind, scope)
    np.testing.assert_allclose(got.detach(), expected, atol=1e-6)
    assert got.is_leaf
    assert got.requires_grad
    assert got is not delta
    assert torch.equal(delta, before)
    assert torch.equal(grad, grad_before)
    assert (got * ~where.mask == 0).all()


@given(st.integers(0, 1000), st.sampled_from(CASES), st.floats(1e-3, 10), st.floats(1e-3, 10))
@settings(max_examples=40)
def test_any_number_of_steps_stays_inside(seed: int, case: tuple[Any, Any], epsilon: float, step_size: float) -> None:
    torch.manual_seed(seed)
    where, ball = inputs(), NormBall(epsilon, step_size, *case)
    delta = ball.init(where, random=bool(seed % 2))
    for _ in range(4):
        delta = ball.step(delta, torch.randn_like(delta), where)
        assert inside(delta, epsilon, *case, where)


@each
def test_epsilon_zero_and_none_are_opposites(kind: Any, scope: Any) -> None:
    """T6: 0 allows nothing, None has no limit."""
    where = inputs()
    grad = torch.randn_like(where.values)
    start = torch.zeros_like(grad)
    assert (NormBall(0.0, 0.5, kind, scope).step(start, grad, where) == 0).all()
    moved = start
    for _ in range(10):
        moved = NormBall(None, 0.5, kind, scope).step(moved, grad, where)
    assert norm(moved, kind, scope).max().item() == pytest.approx(5, rel=1e-4)


@each
def test_gradient_on_padding_neither_moves_nor_dilutes(kind: Any, scope: Any) -> None:
    """T3: what a gradient says about padding, NaN included, must not reach the real tokens."""
    where = inputs()
    grad = torch.randn_like(where.values)
    ball = NormBall(0.3, 0.3, kind, scope)
    clean = ball.step(torch.zeros_like(grad), grad * where.mask, where)
    for poison in (1e6, float("nan")):
        dirty = torch.where(where.mask, grad, poison)
        assert torch.equal(ball.step(torch.zeros_like(grad), dirty, where), clean)


def test_rows_may_have_radii_of_their_own() -> None:
    where = Inputs(torch.randn(3, 4, 2), torch.ones(3, 4, 1, dtype=torch.bool))
    radii = torch.tensor([0.1, 0.0, 2.0]).reshape(3, 1, 1)
    delta = NormBall(radii, radii).step(torch.zeros(3, 4, 2), torch.randn(3, 4, 2), where)
    torch.testing.assert_close(norm(delta), radii, rtol=1e-5, atol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_perturbation_has_the_type_of_the_embeddings(dtype: torch.dtype) -> None:
    where = Inputs(torch.randn(2, 3, 4, dtype=dtype), torch.ones(2, 3, 1, dtype=torch.bool))
    ball = NormBall(0.3, 0.3)
    for random in (False, True):
        start = ball.init(where, random=random)
        assert start.dtype == dtype
        assert ball.step(start, torch.randn(2, 3, 4), where).dtype == dtype


@each
def test_what_stands_on_padding_is_removed(kind: Any, scope: Any) -> None:
    """T3: whatever perturbation comes in."""
    where = inputs()
    moved = NormBall(0.3, 0.1, kind, scope).step(torch.ones_like(where.values), torch.randn(3, 5, 4), where)
    assert (moved * ~where.mask == 0).all()
    assert moved.norm() > 0

"""Norms, directions and projections against loops in float64, and as properties."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import equations
from torch import Tensor

from contraverse.functional import direction, norm, project, zero_grad

KINDS = ("l2", "linf")
SCOPES = ("sequence", "token", "batch")
kinds, scopes = st.sampled_from(KINDS), st.sampled_from(SCOPES)
each = pytest.mark.parametrize(("kind", "scope"), [(k, s) for k in KINDS for s in SCOPES])


@st.composite
def perturbations(draw: Any, largest: float = 1e4) -> Tensor:
    """(B, T, D) of magnitudes from 1e-6 to ``largest``, with zeros among them."""
    shape = draw(st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(1, 5)))
    random = torch.Generator().manual_seed(draw(st.integers(0, 10_000)))
    scale = 10 ** draw(st.floats(-6, float(np.log10(largest))))
    x = torch.randn(shape, generator=random) * scale
    return torch.where(torch.rand(shape, generator=random) < draw(st.sampled_from([0.0, 0.3, 1.0])), 0.0, x)


@each
def test_norm_equals_the_loop(kind: Any, scope: Any) -> None:
    x = torch.randn(3, 4, 5)
    got = norm(x, kind, scope)
    assert got.shape == {"sequence": (3, 1, 1), "token": (3, 4, 1), "batch": (1, 1, 1)}[scope]
    assert got.ravel().tolist() == pytest.approx(equations.norms(x.numpy(), kind, scope), rel=1e-6)


@each
def test_direction_equals_the_loop(kind: Any, scope: Any) -> None:
    grad = torch.randn(3, 4, 5)
    grad[1] = 0
    np.testing.assert_allclose(direction(grad, kind, scope), equations.direction(grad.numpy(), kind, scope), atol=1e-6)


@each
@pytest.mark.parametrize("epsilon", [None, 0.0, 0.5, 100.0])
def test_project_equals_the_loop(kind: Any, scope: Any, epsilon: float | None) -> None:
    x = torch.randn(3, 4, 5)
    expected = equations.project(x.numpy(), epsilon, kind, scope)
    np.testing.assert_allclose(project(x, epsilon, kind, scope), expected, atol=1e-6)


@given(perturbations(), st.just(0.0) | st.floats(1e-6, 100), kinds, scopes)
@settings(max_examples=60)
def test_project_is_inside_and_idempotent(x: Tensor, epsilon: float, kind: Any, scope: Any) -> None:
    once = project(x, epsilon, kind, scope)
    assert (norm(once, kind, scope) <= epsilon * (1 + 1e-6) + 1e-30).all()
    torch.testing.assert_close(project(once, epsilon, kind, scope), once, rtol=1e-6, atol=0)


@given(perturbations(), kinds, scopes)
@settings(max_examples=30)
def test_no_limit_and_a_wide_one_change_nothing(x: Tensor, kind: Any, scope: Any) -> None:
    assert torch.equal(project(x, None, kind, scope), x)
    assert torch.equal(project(x, 1e9, kind, scope), x)


@given(perturbations(), kinds, scopes)
@settings(max_examples=30)
def test_epsilon_zero_allows_nothing(x: Tensor, kind: Any, scope: Any) -> None:
    assert torch.equal(project(x, 0.0, kind, scope), torch.zeros_like(x))


@given(perturbations(largest=1e30), kinds, scopes)
@settings(max_examples=60)
def test_direction_has_unit_size_or_none(grad: Tensor, kind: Any, scope: Any) -> None:
    size = norm(direction(grad, kind, scope), kind, scope)
    alive = norm(grad, kind, scope) > 0
    torch.testing.assert_close(size, alive.float(), rtol=1e-5, atol=1e-6)


@given(perturbations(), kinds, scopes, st.sampled_from([2.0**-20, 2.0**-3, 1024.0, 65536.0]))
@settings(max_examples=40)
def test_direction_ignores_a_positive_factor(grad: Tensor, kind: Any, scope: Any, factor: float) -> None:
    torch.testing.assert_close(
        direction(grad * factor, kind, scope), direction(grad, kind, scope), rtol=1e-6, atol=1e-7
    )


@pytest.mark.parametrize("magnitude", [1e-38, 1e-30, 1e30, 1e38])
def test_direction_of_extreme_gradients_is_exact(magnitude: float) -> None:
    grad = torch.tensor([[[0.75, 1.0]]]) * magnitude
    torch.testing.assert_close(direction(grad, "l2", "sequence"), torch.tensor([[[0.6, 0.8]]]))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_gradients_neither_overflow_nor_underflow(dtype: torch.dtype) -> None:
    for magnitude in (1e-4, 6e4 if dtype == torch.float16 else 1e30):
        grad = torch.full((1, 64, 64), magnitude, dtype=dtype)
        got = direction(grad, "l2", "sequence")
        assert got.dtype == dtype
        torch.testing.assert_close(got.float(), torch.full((1, 64, 64), 1 / 64), rtol=1e-2, atol=0)


@each
@pytest.mark.parametrize("poison", [float("nan"), float("inf"), -float("inf")])
def test_a_poisoned_group_gives_exactly_zero_and_no_other_does(kind: Any, scope: Any, poison: float) -> None:
    grad = torch.randn(3, 4, 5)
    grad[1, 2, 3] = poison
    got = direction(grad, kind, scope)
    group = {"sequence": (1,), "token": (1, 2), "batch": ()}[scope]
    assert (got[group] == 0).all()
    assert got.isfinite().all()
    keep = torch.ones(3, 4, dtype=torch.bool)
    keep[group] = False
    clean = torch.where(grad.isfinite(), grad, 1.0)
    torch.testing.assert_close(got[keep], direction(clean, kind, scope)[keep])


def test_dead_counts_rows() -> None:
    grad = torch.randn(5, 4, 3)
    grad[0] = 0
    grad[2, 1, 1] = float("nan")
    grad[3, 0, 0] = float("inf")
    grad[4, 1:] = 0  # one token alive
    count = zero_grad(grad)
    assert count.shape == ()
    assert not count.is_floating_point()
    assert int(count) == 3

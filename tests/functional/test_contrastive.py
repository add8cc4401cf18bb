"""Contrastive losses against the printed equations."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import equations
from torch import Tensor

from contraverse.functional import info_nce, scal_literal


def features(rows: int = 5, width: int = 7, count: int = 2, seed: int = 0) -> list[Tensor]:
    random = torch.Generator().manual_seed(seed)
    return [torch.randn(rows, width, generator=random) for _ in range(count)]


@pytest.mark.parametrize("t", [0.01, 0.05, 0.5, 1.0, 10.0])
def test_info_nce_is_equation_4(t: float) -> None:
    p, q = features()
    assert info_nce(p, q, t).item() == pytest.approx(equations.info_nce(p.numpy(), q.numpy(), t), rel=1e-5)


@pytest.mark.parametrize("count", [1, 5, 8])
def test_info_nce_with_hard_negatives_is_simcse(count: int) -> None:
    (anchor, positive), (negative,) = features(), features(count, count=1, seed=1)
    expected = equations.simcse_supervised(anchor.numpy(), positive.numpy(), negative.numpy(), 0.05)
    assert info_nce(anchor, positive, 0.05, negatives=negative).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("t", [0.05, 0.5, 5.0])
def test_scal_literal_is_equation_7_as_printed(t: float) -> None:
    z, z_adv = features()
    expected = equations.scal_contrast_as_printed(z.numpy(), z_adv.numpy(), t)
    assert scal_literal(z, z_adv, t).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("t", [0.05, 0.5])
def test_gradients_agree_with_differences_of_the_loop(t: float) -> None:
    z, z_adv = features(3, 4)
    for loss, loop in ((info_nce, equations.info_nce), (scal_literal, equations.scal_contrast_as_printed)):
        leaf = z.clone().requires_grad_()
        loss(leaf, z_adv, t).backward()
        assert leaf.grad is not None
        for i, j in ((0, 0), (1, 2), (2, 3)):
            up, down = z.double().numpy().copy(), z.double().numpy().copy()
            up[i, j] += 1e-5
            down[i, j] -= 1e-5
            slope = (loop(up, z_adv.double().numpy(), t) - loop(down, z_adv.double().numpy(), t)) / 2e-5
            assert leaf.grad[i, j].item() == pytest.approx(slope, rel=1e-3, abs=1e-5)


@given(st.integers(1, 6), st.integers(2, 8), st.floats(0.01, 5), st.integers(0, 1000), st.floats(0, 5))
@settings(max_examples=50)
def test_info_nce_is_never_negative(rows: int, width: int, t: float, seed: int, distance: float) -> None:
    """T14, for the proper InfoNCE: the positive stands in the denominator."""
    p, noise = features(rows, width, seed=seed)
    assert info_nce(p, p + distance * noise, t).item() >= 0


@given(st.integers(1, 6), st.integers(2, 8), st.floats(0.01, 5), st.integers(0, 1000), st.floats(0, 5))
@settings(max_examples=50)
def test_equation_7_as_printed_is_never_negative_either(
    rows: int, width: int, t: float, seed: int, distance: float
) -> None:
    """T14: k = i puts exp(1/t), the largest term there can be, into the denominator."""
    z, noise = features(rows, width, seed=seed)
    assert scal_literal(z, z + distance * noise, t).item() >= -1e-6 / t


def test_equation_7_as_printed_leaves_the_positive_out_of_the_denominator() -> None:
    """T14: z_adv enters through -sim/t alone, so the loss of an opposite positive is exactly 2/t higher."""
    z = features(count=1)[0]
    for t in (0.05, 1.0):
        gap = scal_literal(z, -z, t) - scal_literal(z, z, t)
        assert gap.item() == pytest.approx(2 / t, rel=1e-5)
        assert (info_nce(z, -z, t) - info_nce(z, z, t)).item() != pytest.approx(2 / t, rel=1e-2)


def test_the_temperature_divides() -> None:
    p, q = features()
    sharp, flat = info_nce(p, p, 0.01).item(), info_nce(p, q, 1e4).item()
    assert sharp < 1e-6
    assert flat == pytest.approx(math.log(len(p)), abs=1e-3)


def test_the_length_of_a_vector_does_not_matter() -> None:
    p, q = features()
    for loss in (info_nce, scal_literal):
        torch.testing.assert_close(loss(100 * p, 0.01 * q, 0.05), loss(p, q, 0.05), rtol=1e-5, atol=1e-6)


def test_anchors_are_paired_with_their_own_row() -> None:
    """T7: distinct rows, identity encoder: the own row must be the best candidate, and a shift must not be."""
    z = torch.eye(6)
    assert info_nce(z, z, 0.05).item() < 1e-6
    assert info_nce(z, z.roll(1, 0), 0.05).item() > 10


def test_rows_may_be_permuted() -> None:
    """T8: a scale or target taken from row 0 would show."""
    p, q = features()
    order = torch.tensor([3, 1, 4, 0, 2])
    for loss in (info_nce, scal_literal):
        torch.testing.assert_close(loss(p[order], q[order], 0.05), loss(p, q, 0.05))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_features_are_scored_in_fp32(dtype: torch.dtype) -> None:
    p, q = (x.to(dtype) for x in features(16, 32))
    for loss in (info_nce, scal_literal):
        got = loss(p, q, 0.01)
        assert got.dtype == torch.float32
        torch.testing.assert_close(got, loss(p.float(), q.float(), 0.01))


def test_autocast_changes_nothing() -> None:
    p, q = features(16, 32)
    for loss in (info_nce, scal_literal):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            got = loss(p, q, 0.05)
        assert torch.equal(got, loss(p, q, 0.05))


def test_a_zero_vector_gives_finite_loss_and_gradient() -> None:
    p, q = features()
    p[0] = 0
    for loss in (info_nce, scal_literal):
        leaf = p.clone().requires_grad_()
        value = loss(leaf, q, 0.05)
        value.backward()
        assert value.isfinite()
        assert leaf.grad is not None
        assert leaf.grad.isfinite().all()


def test_float64_references_are_themselves_right() -> None:
    """Two orthogonal pairs by hand: logits 1/t against 0."""
    z = np.eye(2)
    assert equations.info_nce(z, z, 1.0) == pytest.approx(math.log(1 + math.exp(-1)))
    assert equations.scal_contrast_as_printed(z, z, 1.0) == pytest.approx(math.log(1 + math.exp(-1)))
    assert equations.uscal_total(z, z, z, alpha=0.5, t=1.0) == pytest.approx(1.5 * math.log(1 + math.exp(-1)))

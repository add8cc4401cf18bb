"""Contrastive losses against the printed equations."""

import math
from typing import Any

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


# rows of the same class


LABELS = [0, 1, 0, 0, 2, 1]


def two_views(seed: int) -> tuple[Tensor, Tensor, Tensor]:
    random = torch.Generator().manual_seed(seed)
    p, q = torch.randn(2, 6, 5, generator=random, dtype=torch.float64)
    return p, q, torch.tensor(LABELS)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("same_class", ["masked", "positives"])
def test_rows_of_the_same_class_are_masked_or_positives_as_in_the_loops(seed: int, same_class: Any) -> None:
    p, q, labels = two_views(seed)
    for loss, loop in ((info_nce, equations.same_class_contrast), (scal_literal, equations.same_class_as_printed)):
        expected = loop(p.numpy(), q.numpy(), LABELS, 0.3, same_class)
        got = loss(p, q, 0.3, labels=labels, same_class=same_class)
        assert got.item() == pytest.approx(expected, rel=1e-5)
        with pytest.raises(ValueError, match="labels"):
            loss(p, q, 0.3, same_class=same_class)
        # As printed they are negatives, whatever their labels.
        assert loss(p, q, 0.3, labels=labels) == loss(p, q, 0.3)


@pytest.mark.parametrize(("same_class", "sign"), [("negatives", 1), ("masked", 0), ("positives", -1)])
def test_a_row_of_the_same_class_is_pushed_left_or_pulled(same_class: Any, sign: int) -> None:
    """The slope of the loss at the similarity of the first anchor with the third row, which is of its class."""
    similarities = 0.1 * torch.eye(3)
    similarities[0] = torch.tensor([0.5, 0.1, 0.4])
    losses = []
    for moved in (-1e-3, 1e-3):
        rows = similarities.clone()
        rows[0, 2] += moved
        rest = (1 - rows.square().sum(1, keepdim=True)).sqrt()
        anchors = torch.cat([rows, rest], 1).double()
        candidates = torch.eye(3, 4, dtype=torch.float64)
        labels = torch.tensor([0, 1, 0])
        losses.append(info_nce(anchors, candidates, 0.5, labels=labels, same_class=same_class).item())
    slope = (losses[1] - losses[0]) / 2e-3
    assert slope == pytest.approx(0, abs=1e-4) if sign == 0 else sign * slope > 1e-2


def test_hard_negatives_stay_where_rows_are_masked() -> None:
    p, q, labels = two_views(1)
    hard = torch.randn(3, 5, dtype=torch.float64)
    own = torch.zeros(6, dtype=torch.long)
    masked = info_nce(p, q, 0.3, negatives=hard, labels=own, same_class="masked")
    losses = [equations.simcse_supervised(*(x[i : i + 1].numpy() for x in (p, q)), hard.numpy(), 0.3) for i in range(6)]
    assert masked.item() == pytest.approx(sum(losses) / 6, rel=1e-5)
    positives = info_nce(p, q, 0.3, negatives=hard, labels=labels, same_class="positives")
    assert positives > info_nce(p, q, 0.3, labels=labels, same_class="positives")

"""NT-Xent against the printed equation."""

import pytest
import torch
from reference.sentence_reference import nt_xent as loop
from torch import Tensor

from contraverse.functional import info_nce, nt_xent


def views(rows: int = 5) -> tuple[Tensor, Tensor]:
    return torch.randn(rows, 7), torch.randn(rows, 7)


@pytest.mark.parametrize("t", [0.01, 0.1, 1.0])
@pytest.mark.parametrize("rows", [1, 2, 5])
def test_it_is_the_printed_equation(t: float, rows: int) -> None:
    first, second = views(rows)
    expected = loop(first.double().numpy(), second.double().numpy(), t)
    assert nt_xent(first, second, t).item() == pytest.approx(expected, rel=1e-5, abs=1e-6)


def test_it_is_symmetric_and_info_nce_is_not() -> None:
    first, second = views()
    torch.testing.assert_close(nt_xent(first, second, 0.1), nt_xent(second, first, 0.1))
    assert not torch.isclose(info_nce(first, second, 0.1), info_nce(second, first, 0.1))


def test_gradients_agree_with_differences_of_the_loop() -> None:
    first, second = views(3)
    leaf = first.clone().requires_grad_()
    nt_xent(leaf, second, 0.1).backward()
    assert leaf.grad is not None
    for i, j in ((0, 0), (1, 4), (2, 6)):
        ends = []
        for sign in (1, -1):
            moved = first.double().numpy().copy()
            moved[i, j] += sign * 1e-5
            ends.append(loop(moved, second.double().numpy(), 0.1))
        assert leaf.grad[i, j].item() == pytest.approx((ends[0] - ends[1]) / 2e-5, rel=1e-3, abs=1e-5)


def test_one_row_has_no_negative_and_no_gradient() -> None:
    leaf = torch.randn(1, 7).requires_grad_()
    loss = nt_xent(leaf, torch.randn(1, 7), 0.1)
    loss.backward()
    assert loss.item() == 0
    assert leaf.grad is not None
    assert leaf.grad.abs().max() < 1e-6

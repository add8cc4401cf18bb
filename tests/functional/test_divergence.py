"""KL against its definition."""

import pytest
import torch
import torch.nn.functional as F
from reference import equations

from contraverse.functional import kl, squared_distance, symmetric_kl


def test_kl_equals_the_loop() -> None:
    p, q = torch.randn(6, 4), 3 * torch.randn(6, 4)
    assert kl(p, q).tolist() == pytest.approx(equations.kl(p.numpy(), q.numpy()), rel=1e-5, abs=1e-6)


def test_the_first_argument_is_the_weight() -> None:
    certain, even = torch.tensor([[20.0, 0.0]]), torch.zeros(1, 2)
    assert kl(certain, even).item() == pytest.approx(0.6931, abs=1e-3)
    assert kl(even, certain).item() == pytest.approx(10 - 0.6931, abs=1e-3)


def test_symmetric_kl_is_the_sum_of_both() -> None:
    p, q = torch.randn(6, 4), torch.randn(6, 4)
    one, other = equations.kl(p.numpy(), q.numpy()), equations.kl(q.numpy(), p.numpy())
    expected = [a + b for a, b in zip(one, other, strict=True)]
    assert symmetric_kl(p, q).tolist() == pytest.approx(expected, rel=1e-5, abs=1e-6)
    assert torch.equal(symmetric_kl(p, q), symmetric_kl(q, p))


def test_never_negative_and_zero_at_itself() -> None:
    p, q = torch.randn(50, 3), torch.randn(50, 3)
    assert (kl(p, q) >= 0).all()
    assert kl(p, p + 5).abs().max() < 1e-6


def test_confident_logits_stay_finite_with_gradient() -> None:
    p = torch.tensor([[200.0, -200.0]], requires_grad=True)
    loss = symmetric_kl(p, -p.detach()).sum()
    loss.backward()
    assert loss.isfinite()
    assert p.grad is not None
    assert p.grad.isfinite().all()


def test_half_precision_is_raised_to_fp32() -> None:
    assert kl(torch.randn(2, 3).half(), torch.randn(2, 3).half()).dtype == torch.float32


def test_constant_targets_leave_the_value_and_draw_each_to_the_other() -> None:
    """The gradient at each logits is that of the cross-entropy with the other's distribution as soft target."""
    p, q = torch.randn(5, 3, requires_grad=True), torch.randn(5, 3, requires_grad=True)
    got = symmetric_kl(p, q, constant_targets=True)
    torch.testing.assert_close(got, symmetric_kl(p, q))
    soft = [F.cross_entropy(a, b.detach().softmax(-1), reduction="sum") for a, b in ((p, q), (q, p))]
    for one, other in zip(torch.autograd.grad(got.sum(), (p, q)), torch.autograd.grad(sum(soft), (p, q)), strict=True):
        torch.testing.assert_close(one, other)


def test_scores_of_a_regression_are_apart_by_their_squared_distance() -> None:
    p, q = torch.tensor([[1.5], [-2.0]], dtype=torch.bfloat16), torch.tensor([[1.0], [1.0]], dtype=torch.bfloat16)
    distance = squared_distance(p, q)
    assert distance.dtype == torch.float32
    assert distance.tolist() == [0.25, 9.0]

"""The softmax over a memory bank and its noise-contrastive estimate, against probabilities written out in float64."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from contraverse.functional import log_partition, nce, sampled_softmax

ROWS = 40


def scores(seed: int, anchors: int = 3, count: int = 6) -> tuple[Tensor, Tensor, Tensor]:
    """Of each anchor its positive's, its negatives', and which of these there are: at least two."""
    random = torch.Generator().manual_seed(seed)
    valid = torch.rand(anchors, count, generator=random) < 0.6
    valid[:, :2] = True
    draw = {"generator": random, "dtype": torch.float64}
    return 4 * torch.randn(anchors, **draw), 4 * torch.randn(anchors, count, **draw), valid


def by_hand(positive: Tensor, negatives: Tensor, valid: Tensor, log_z: float) -> Tensor:
    """NCE as probabilities: each score is the data's or the noise's."""
    total = positive.new_zeros(())
    for i in range(len(positive)):
        mine = [j for j in range(valid.shape[1]) if valid[i, j]]
        noise = len(mine) / ROWS
        p = positive[i].exp() / math.exp(log_z)
        total = total - (p / (p + noise)).log()
        for j in mine:
            p = negatives[i, j].exp() / math.exp(log_z)
            total = total - (noise / (p + noise)).log()
    return total / len(positive)


def softmax_by_hand(positive: Tensor, negatives: Tensor, valid: Tensor) -> Tensor:
    total = positive.new_zeros(())
    for i in range(len(positive)):
        others = sum(negatives[i, j].exp() for j in range(valid.shape[1]) if valid[i, j])
        total = total - (positive[i].exp() / (positive[i].exp() + others)).log()
    return total / len(positive)


def slopes(loss: Callable[..., Tensor], positive: Tensor, negatives: Tensor, *rest: object) -> list[Tensor]:
    leaves = [positive.clone().requires_grad_(), negatives.clone().requires_grad_()]
    return list(torch.autograd.grad(loss(*leaves, *rest), leaves))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("log_z", [-2.0, 0.0, 6.0])
def test_the_estimate_and_its_gradient_are_those_of_the_probabilities(seed: int, log_z: float) -> None:
    positive, negatives, valid = scores(seed)

    def ours(p: Tensor, n: Tensor) -> Tensor:
        return nce(p, n, valid, log_z=torch.tensor(log_z, dtype=torch.float64), rows=ROWS)

    expected = by_hand(positive, negatives, valid, log_z)
    assert ours(positive, negatives).item() == pytest.approx(expected.item(), rel=1e-7)
    assert expected > 0
    theirs = slopes(lambda p, n: by_hand(p, n, valid, log_z), positive, negatives)
    torch.testing.assert_close(slopes(ours, positive, negatives), theirs, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("seed", range(4))
def test_the_softmax_and_its_gradient_are_those_of_the_probabilities(seed: int) -> None:
    positive, negatives, valid = scores(seed)
    torch.testing.assert_close(
        sampled_softmax(positive, negatives, valid), softmax_by_hand(positive, negatives, valid), rtol=1e-9, atol=0
    )
    torch.testing.assert_close(
        slopes(sampled_softmax, positive, negatives, valid), slopes(softmax_by_hand, positive, negatives, valid)
    )


def test_what_is_not_valid_counts_nowhere() -> None:
    positive, negatives, valid = scores(1)
    other = negatives.masked_fill(~valid, 1e4)
    log_z = log_partition(positive, negatives, valid, rows=ROWS)
    assert (~valid).any()
    assert log_partition(positive, other, valid, rows=ROWS) == log_z
    assert sampled_softmax(positive, other, valid) == sampled_softmax(positive, negatives, valid)
    assert nce(positive, other, valid, log_z=log_z, rows=ROWS) == nce(
        positive, negatives, valid, log_z=log_z, rows=ROWS
    )
    slope = slopes(lambda p, n: nce(p, n, valid, log_z=log_z, rows=ROWS), positive, other)[1]
    assert (slope[~valid] == 0).all()
    assert slope.isfinite().all()


def test_the_normaliser_is_n_times_the_mean() -> None:
    positive, negatives, valid = scores(2)
    everything = torch.cat([positive, negatives[valid]])
    expected = math.log(ROWS * everything.exp().mean().item())
    assert log_partition(positive, negatives, valid, rows=ROWS).item() == pytest.approx(expected, rel=1e-12)


def test_with_the_true_normaliser_the_estimate_is_least_where_the_scores_are_the_datas() -> None:
    """Gutmann and Hyvarinen: minimised by log-probabilities, without any constraint that they sum to one."""
    data = torch.tensor([0.5, 0.3, 0.15, 0.05], dtype=torch.float64)
    s = torch.zeros(4, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([s], max_iter=200, line_search_fn="strong_wolfe")
    some = torch.ones(4, 8, dtype=torch.bool)  # eight draws of noise: each row twice, which is their expectation

    def loss() -> Tensor:
        optimizer.zero_grad()
        noise = s.repeat(2).expand(4, 8)
        each = [
            nce(s[i : i + 1], noise[i : i + 1], some[:1], log_z=torch.zeros((), dtype=torch.float64), rows=4)
            for i in range(4)
        ]
        value = (data * torch.stack(each)).sum()
        value.backward()
        return value

    optimizer.step(loss)
    torch.testing.assert_close(s.detach().exp(), data, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_cold_scores_stay_finite(dtype: torch.dtype) -> None:
    """exp(1 / .001) is more than float64 holds."""
    positive = torch.tensor([1000.0, -1000.0], dtype=dtype, requires_grad=True)
    negatives = torch.tensor([[-1000.0, 990.0], [1000.0, 1000.0]], dtype=dtype, requires_grad=True)
    valid = torch.ones(2, 2, dtype=torch.bool)
    log_z = log_partition(positive, negatives, valid, rows=9)
    for loss in (sampled_softmax(positive, negatives, valid), nce(positive, negatives, valid, log_z=log_z, rows=9)):
        assert loss.dtype == dtype
        for value in (loss, *torch.autograd.grad(loss, (positive, negatives))):
            assert value.isfinite().all()

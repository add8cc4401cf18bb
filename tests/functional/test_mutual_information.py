"""InfoBERT's bounds against loops over tokens and pairs, ragged rows, and tokens spread over ranks."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from reference import infobert_reference as reference
from reference.ranks import run_ranks
from torch import Tensor

from contraverse.functional import anchored, club_bound, info_nce_bound


def ragged(*lengths: int, width: int | None = None) -> Tensor:
    """Masks of rows with so many real tokens."""
    width = width or max(lengths)
    return (torch.arange(width) < torch.tensor(lengths).unsqueeze(1)).long()


def array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().double().numpy()


# the upper bound


@pytest.mark.parametrize("lengths", [(5, 3, 1), (2,), (4, 4), (1,)])
def test_the_upper_bound_is_the_mean_over_all_pairs(lengths: tuple[int, ...]) -> None:
    mask = ragged(*lengths)
    features = torch.randn(*mask.shape, 6) + 3
    expected = reference.club_bound(array(features[mask.bool()]))
    assert club_bound(features, mask).item() == pytest.approx(expected, rel=1e-5, abs=1e-6)


def test_the_upper_bound_has_the_gradient_of_all_pairs() -> None:
    """Though none goes through the mean."""
    mask, features = ragged(5, 3, 1), torch.randn(3, 5, 6, requires_grad=True)
    real = features[mask.bool()]
    pairs = (real.unsqueeze(0) - real.unsqueeze(1)).square().sum(-1).mean() / 2
    (expected,) = torch.autograd.grad(pairs, features)
    (got,) = torch.autograd.grad(club_bound(features, mask), features)
    torch.testing.assert_close(got, expected)
    assert (got[~mask.bool()] == 0).all()


def test_what_stands_on_padding_does_not_matter() -> None:
    mask, features = ragged(4, 2), torch.randn(2, 4, 3)
    other = torch.where(mask.unsqueeze(-1).bool(), features, float("nan"))
    assert torch.equal(club_bound(other, mask), club_bound(features, mask))


def test_a_batch_without_tokens_has_nothing_to_tell() -> None:
    features = torch.randn(2, 3, 4, requires_grad=True)
    bound = club_bound(features, ragged(0, 0, width=3))
    bound.backward()
    assert (bound.item(), features.grad.abs().sum().item()) == (0.0, 0.0)
    scores = torch.randn(2, 3, 2, requires_grad=True)
    bound = info_nce_bound(scores, torch.zeros(2, 3, dtype=torch.bool))
    bound.backward()
    assert (bound.item(), scores.grad.abs().sum().item()) == (0.0, 0.0)


# anchored features


@pytest.mark.parametrize(("low", "high"), [(0.5, 0.9), (0.0, 1.0), (0.2, 0.3)])
def test_anchored_features_are_those_of_the_middle_ranks(low: float, high: float) -> None:
    lengths = (20, 10, 9, 7, 3, 2, 1, 0)
    mask = ragged(*lengths, width=23)
    grad = torch.randn(len(lengths), 23, 4)
    places, valid = anchored(grad.norm(dim=-1), mask, low, high)
    for row, length in enumerate(lengths):
        got = sorted(places[row, valid[row]].tolist())
        assert got == reference.anchored(array(grad[row]), mask[row].tolist(), low, high)
        assert len(got) == math.ceil(high * length) - math.ceil(low * length)


def test_an_anchored_feature_is_never_padding() -> None:
    """Not for a gradient of zero, nor for one that is not finite."""
    mask = ragged(4, 6)
    for value in (0.0, float("nan"), float("inf")):
        places, valid = anchored(torch.full((2, 6), value), mask, 0.0, 1.0)
        assert sorted(places[0, valid[0]].tolist()) == [0, 1, 2, 3]
        assert sorted(places[1, valid[1]].tolist()) == [0, 1, 2, 3, 4, 5]


# the lower bound


def spread(mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Scores of every token with every sentence; the tokens, and the row of each, in the order of the mask."""
    scores = 3 * torch.randn(*mask.shape, len(mask))
    return scores, scores[mask.bool()], mask.nonzero()[:, 0]


@pytest.mark.parametrize("lengths", [(4, 2, 3), (1, 1), (5,), (3, 0)])
def test_the_lower_bound_is_infonce_over_the_batch(lengths: tuple[int, ...]) -> None:
    mask = ragged(*lengths)
    scores, flat, row = spread(mask)
    local, sentences = np.arange(len(flat), dtype=float)[:, None], np.asarray(row, dtype=float)[:, None]
    expected = reference.info_nce(local, sentences, lambda t, z: float(flat[int(t[0]), int(z[0])]))
    got = info_nce_bound(scores, mask.bool())
    assert got.item() == pytest.approx(expected, rel=1e-5, abs=1e-6)
    assert got.item() <= math.log(sum(lengths)) + 1e-6


def test_the_lower_bound_has_the_gradient_of_the_loop() -> None:
    mask = ragged(4, 2, 3)
    scores, _, _ = spread(mask)
    scores.requires_grad_()
    flat, row = scores[mask.bool()], mask.nonzero()[:, 0]
    own = flat[torch.arange(len(flat)), row]
    loop = (own - flat.logsumexp(0)[row] + math.log(len(flat))).mean()
    (expected,) = torch.autograd.grad(loop, scores)
    (got,) = torch.autograd.grad(info_nce_bound(scores, mask.bool()), scores)
    torch.testing.assert_close(got, expected)


def test_a_critic_that_knows_reaches_the_entropy_of_the_rows() -> None:
    """Four rows of three tokens: which row a token stands in is log 4 nats, whatever the scores' size."""
    own = torch.eye(4).unsqueeze(1).expand(4, 3, 4)
    assert info_nce_bound(1e3 * own, torch.ones(4, 3, dtype=torch.bool)).item() == pytest.approx(math.log(4), rel=1e-5)
    assert info_nce_bound(torch.zeros(4, 3, 4), torch.ones(4, 3, dtype=torch.bool)).item() == pytest.approx(0, abs=1e-6)


# ranks


def whole() -> dict[str, Tensor]:
    random = torch.Generator().manual_seed(3)
    mask = ragged(5, 2, 3, 1)
    return {"mask": mask, "features": torch.randn(4, 5, 6, generator=random),
            "scores": torch.randn(4, 5, 4, generator=random)}  # fmt: skip


def bounds(mask: Tensor, features: Tensor, scores: Tensor) -> dict[str, Tensor]:
    return {"club": club_bound(features, mask), "info_nce": info_nce_bound(scores, mask.bool())}


def _on_a_rank(number: int, folder: Path) -> None:
    """Two rows each, and only the columns that the longest of them needs."""
    mine = {name: value[2 * number : 2 * number + 2] for name, value in whole().items()}
    width = int(mine["mask"].sum(1).max())
    parts = {name: value[:, :width].clone() for name, value in mine.items()}
    leaves = [parts[name].requires_grad_() for name in ("features", "scores")]
    found = bounds(**parts)
    sum(found.values()).backward()
    torch.save({"bounds": {k: v.detach() for k, v in found.items()}, "grads": [leaf.grad for leaf in leaves]},
               folder / f"{number}.pt")  # fmt: skip


@pytest.mark.ddp
def test_two_ranks_equal_one_process(tmp_path: Path) -> None:
    """T18. Rows of one rank are longer than the other's: the mean over ranks is the bound, and so are its gradients."""
    run_ranks(_on_a_rank, tmp_path)
    ranks: list[Any] = [torch.load(tmp_path / f"{number}.pt") for number in range(2)]
    batch = whole()
    leaves = [batch[name].requires_grad_() for name in ("features", "scores")]
    expected = bounds(**batch)
    sum(expected.values()).backward()
    for name, value in expected.items():
        torch.testing.assert_close(sum(r["bounds"][name] for r in ranks) / 2, value.detach())
    for i, leaf in enumerate(leaves):
        for number, found in enumerate(ranks):
            got = found["grads"][i] / 2
            rows = leaf.grad[2 * number : 2 * number + 2]
            torch.testing.assert_close(got, rows[:, : got.shape[1]])
            assert (rows[:, got.shape[1] :] == 0).all()

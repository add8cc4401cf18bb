"""Rows of all ranks: the identity alone, and on two ranks the gradient of one process (T18)."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from reference.ranks import run_ranks
from torch import Tensor

from contraverse.functional import gather, info_nce, rank, scal_literal


def test_without_ranks_gather_is_the_identity() -> None:
    x = torch.randn(3, 2)
    assert gather(x) is x
    assert rank() == 0


def _features() -> list[Tensor]:
    random = torch.Generator().manual_seed(3)
    return [torch.randn(6, 4, generator=random) for _ in range(3)]


def _losses(parts: list[Tensor]) -> list[Tensor]:
    a, p, n = parts
    return [info_nce(a, p, 0.5), info_nce(a, p, 0.5, negatives=n), scal_literal(a, p, 0.5)]


def _on_a_rank(number: int, folder: Path) -> None:
    rows = slice(3 * number, 3 * number + 3)
    results: dict[str, Any] = {
        "gathered": gather(torch.full((2,), float(number))).tolist(),
        "rank": rank(),
        "grads": [],
    }
    for i in range(3):
        leaves = [x[rows].clone().requires_grad_() for x in _features()]
        loss = _losses(leaves)[i]
        loss.backward()
        mean = loss.detach() / dist.get_world_size()
        dist.all_reduce(mean)
        results["grads"].append(([None if x.grad is None else x.grad / 2 for x in leaves], mean))
    torch.save(results, folder / f"{number}.pt")


@pytest.mark.ddp
def test_two_ranks_equal_one(tmp_path: Path) -> None:
    run_ranks(_on_a_rank, tmp_path)
    ranks = [torch.load(tmp_path / f"{number}.pt") for number in range(2)]
    assert [r["rank"] for r in ranks] == [0, 1]
    for r in ranks:
        assert r["gathered"] == [0, 0, 1, 1]
    for i in range(3):
        leaves = [x.requires_grad_() for x in _features()]
        loss = _losses(leaves)[i]
        loss.backward()
        for j, leaf in enumerate(leaves):
            got = [r["grads"][i][0][j] for r in ranks]
            if leaf.grad is None:
                assert got == [None, None]
            else:
                torch.testing.assert_close(torch.cat(got), leaf.grad)
        torch.testing.assert_close(ranks[0]["grads"][i][1], loss.detach())

"""Two processes: what each gets of the other, and what is decided for both."""

from pathlib import Path

import pytest
import torch
from reference.ranks import run_ranks
from torch import nn

from contraverse.functional import (
    AnyOf,
    all_parts,
    from_all,
    from_first,
    my_share,
    on_first,
    processes,
    share_buffers,
    sharing,
    wait_for_all,
)


def _on_a_rank(number: int, out: Path) -> None:
    assert processes() == 2
    assert from_all({"mine": number}) == [{"mine": 0}, {"mine": 1}]
    assert from_first(number) == 0
    mine = list(my_share(range(5)))
    assert mine == [0, 1, 2, 3, 4]
    assert all_parts(mine) == mine
    assert on_first(lambda: number) == number
    with sharing():
        mine = list(my_share(range(5)))
        assert mine == [[0, 2, 4], [1, 3]][number]
        assert all_parts(mine) == [0, 2, 4, 1, 3]
        # Fewer batches than processes: one has nothing.
        assert all_parts(list(my_share([7]))) == [7]
        assert on_first(lambda: number) == 0
    assert list(my_share(range(5))) == [0, 1, 2, 3, 4]
    # Two questions under way at the same time; each is answered as it was asked.
    early, late = AnyOf(False), AnyOf(number == 1)
    assert (early.answer(), late.answer()) == (False, True)
    norm = nn.BatchNorm1d(3)
    nn.init.constant_(norm.running_mean, float(number))
    norm.num_batches_tracked.fill_(number + 4)
    share_buffers(norm)
    assert norm.running_mean.tolist() == [0.0, 0.0, 0.0]
    assert norm.num_batches_tracked.item() == 4
    wait_for_all()


@pytest.mark.ddp
def test_two_processes_are_one(tmp_path: Path) -> None:
    run_ranks(_on_a_rank, tmp_path)


def test_one_process_has_it_all() -> None:
    norm = nn.BatchNorm1d(2)
    norm.running_mean = torch.ones(2)
    with sharing():
        assert processes() == 1
        assert list(my_share(range(3))) == all_parts([0, 1, 2]) == [0, 1, 2]
        assert (on_first(lambda: 5), from_first(6), from_all(7)) == (5, 6, [7])
    share_buffers(norm)
    wait_for_all()
    assert norm.running_mean.tolist() == [1.0, 1.0]
    assert AnyOf(True).answer()
    assert not AnyOf(False).answer()

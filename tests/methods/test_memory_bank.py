"""The memory bank: what it holds, in which precision, and what it costs."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from contraverse.methods import CARL
from contraverse.methods._memory_bank import MemoryBank, draw_negatives
from contraverse.types import TrainingInfo

UNIT = F.normalize(torch.randn(6, 5, generator=torch.Generator().manual_seed(3)), dim=1)


def test_a_row_that_was_not_written_takes_what_it_is_given() -> None:
    bank = MemoryBank(4, 5)
    assert not bank.filled.any()
    bank.update(torch.tensor([2, 0]), 7 * UNIT[:2], 0.9)
    torch.testing.assert_close(bank.rows[[2, 0]], UNIT[:2])
    assert bank.filled.tolist() == [True, False, True, False]
    assert (bank.rows[[1, 3]] == 0).all()


@pytest.mark.parametrize("written", [True, False])
def test_a_row_that_stands_thrice_in_a_batch_moves_thrice(written: bool) -> None:
    """T13: in the order given, by eq. (5) alone, and to norm 1 afterwards; a new row is its first feature."""
    index, momentum = torch.tensor([1, 0, 1, 3, 1, 0]), 0.6
    bank = MemoryBank(4, 5)
    if written:
        bank.update(torch.arange(4), UNIT[:4], 0.0)
    rows, filled = bank.rows.clone(), bank.filled.clone()
    for i, row in zip(index, UNIT, strict=True):
        rows[i] = momentum * rows[i] + (1 - momentum) * row if filled[i] else row
        filled[i] = True
    bank.update(index, UNIT, momentum)
    torch.testing.assert_close(bank.rows, F.normalize(rows, dim=1))
    assert torch.equal(bank.filled, filled)
    assert torch.equal(bank.rows[2], UNIT[2] if written else torch.zeros(5))


def test_rows_that_are_no_choice_are_never_drawn() -> None:
    labels, filled = torch.tensor([0, 1, 1, 1, 2]), torch.tensor([True, True, False, True, False])
    for count in (None, 1, 2, 9):
        for _ in range(20):
            rows, valid = draw_negatives(labels[[0, 1]], labels, count, filled)
            drawn = [(torch.arange(5) if rows is None else rows[i])[valid[i]].tolist() for i in range(2)]
            assert set(drawn[0]) <= {1, 3}
            assert len(drawn[0]) == min(count or 9, 2)
            assert drawn[1] == [0]


def test_a_feature_of_nothing_is_no_nan() -> None:
    bank = MemoryBank(2, 5)
    bank.update(torch.tensor([0, 1]), torch.zeros(2, 5), 0.5)
    assert (bank.rows == 0).all()


@pytest.mark.parametrize(("dtype", "error"), [(torch.float16, 2e-3), (torch.bfloat16, 2e-2)])
def test_half_precision_rounds_rows_and_scores(dtype: torch.dtype, error: float) -> None:
    exact, rough = MemoryBank(6, 5), MemoryBank(6, 5, dtype)
    for bank in (exact, rough):
        for momentum in (0.0, 0.5):
            bank.update(torch.arange(6), UNIT.roll(1, 0) if momentum else UNIT, momentum)
    assert rough.rows.dtype == dtype
    scores = rough.scores(UNIT)
    assert scores.dtype == torch.float32
    torch.testing.assert_close(scores, exact.scores(UNIT), rtol=0, atol=error)
    assert not torch.equal(scores, exact.scores(UNIT))


def test_scores_are_exact_under_autocast() -> None:
    bank = MemoryBank(6, 5)
    bank.update(torch.arange(6), UNIT, 0.0)
    expected = UNIT @ bank.rows.T
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(bank.scores(UNIT), expected)


@pytest.mark.parametrize(("dtype", "megabytes"), [("float32", 420), ("float16", 210), ("bfloat16", 210)])
def test_sst2s_two_banks_fit(dtype: Any, megabytes: int) -> None:
    """67,349 rows of BERT-base, by the sizes of the buffers: nothing is allocated."""
    labels = torch.arange(67349) % 2
    method = CARL(bank_dtype=dtype)
    with torch.device("meta"):
        method.prepare(TrainingInfo(num_examples=67349, hidden_size=768, labels=labels))
    sizes = [b.numel() * b.element_size() for b in method.buffers()]
    assert 0.97 * megabytes < sum(sizes) / 1e6 < megabytes
    assert sorted(b.shape for b in method.buffers() if b.dim() == 2) == [(67349, 768)] * 2


class Largest(TorchDispatchMode):
    """The most numbers that any result holds."""

    numbers = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for value in out if isinstance(out, (tuple, list)) else [out]:
            if isinstance(value, Tensor):
                self.numbers = max(self.numbers, value.numel())
        return out


@pytest.mark.parametrize("negatives", [300, None])
@pytest.mark.parametrize("estimator", ["nce", "softmax"])
def test_nothing_is_larger_than_the_bank(negatives: int | None, estimator: Any) -> None:
    """CRD gathers m x batch x width; here one product and a choice among its columns."""
    rows, width, batch = 1000, 64, 4
    method = CARL(negatives=negatives, estimator=estimator)
    method.prepare(TrainingInfo(num_examples=rows, hidden_size=width, labels=torch.arange(rows) % 3))
    anchors = F.normalize(torch.randn(batch, width), dim=1).requires_grad_()
    method.adversarial.update(torch.arange(rows), torch.randn(rows, width), 0.0)
    with Largest() as seen:
        index = torch.arange(batch)
        drawn = draw_negatives(method.labels[index], method.labels, negatives)
        method.contrast("clean", anchors, index, drawn).backward()
    assert anchors.grad is not None
    assert seen.numbers == rows * width < 300 * batch * width  # the bank itself, transposed


def test_all_negatives_draw_nothing() -> None:
    labels = torch.tensor([0, 1, 1, 2])
    state = torch.get_rng_state()
    chosen, valid = draw_negatives(labels[:2], labels, None)
    assert torch.equal(torch.get_rng_state(), state)
    assert chosen is None
    assert valid.tolist() == [[False, True, True, True], [True, False, False, True]]

"""A batch in one piece, in micro-batches and on two ranks gives the same gradient."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from reference.draws import RowsOf
from reference.driving import TEXT_CASES, flat, gradients, make, ready, settled
from reference.ranks import run_ranks
from reference.tiny import LABELS, random_batch, take, with_pairs
from torch.nn.parallel import DistributedDataParallel

from contraverse.models import TextModel
from contraverse.training import step


def eight() -> dict[str, Any]:
    return with_pairs(random_batch(8, 9))


def build(folder: Path, case: str) -> TextModel:
    """The same weights in every process. Batch norm is in eval mode: its statistics are those of a rank's own rows."""
    torch.manual_seed(1)
    model = TextModel.from_pretrained(folder, labels=LABELS)
    model.add_heads(make(case).heads)
    model.train()
    settled(model)
    return model


@pytest.mark.parametrize("case", ["ce", "at", "at-fgsm", "at-token"])
def test_micro_batches_add_up(case: str, tiny_folder: Callable[..., Path]) -> None:
    """A mean over rows: 8 rows once, 4 rows twice and 2 rows four times are the same step."""
    model, batch = build(tiny_folder("bert", 0.0), case), eight()
    whole = flat(gradients(make(case), model, batch))
    for parts in (2, 4):
        model.zero_grad()
        for i in range(parts):
            rows = take(batch, slice(i * 8 // parts, (i + 1) * 8 // parts))
            step(make(case), model, rows, backward=lambda loss, n=parts: (loss / n).backward())
        grads = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
        torch.testing.assert_close(flat(grads), whole, rtol=1e-4, atol=1e-5)


def _on_a_rank(number: int, out: Path, folder: Path) -> None:
    """Every case in one start of the processes: starting them is most of the time."""
    found = {}
    for case in TEXT_CASES:
        method, model = make(case), build(folder, case)
        ready(method, model)
        ddp = DistributedDataParallel(model, find_unused_parameters=True)
        rows = take(eight(), slice(4 * number, 4 * number + 4))
        for _ in range(2):  # the second step would find a reducer that was left unfinished
            model.zero_grad()
            torch.manual_seed(5)
            with RowsOf(number, 2, 4):
                step(method, ddp, rows, backward=lambda loss: loss.backward(), no_sync=ddp.no_sync)
        grads = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
        found[case] = grads, method.state_dict()
    torch.save(found, out / f"{number}.pt")


@pytest.fixture(scope="module")
def on_two_ranks(tiny_folder: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    out = tmp_path_factory.mktemp("ranks")
    run_ranks(_on_a_rank, out, tiny_folder("bert", 0.0))
    return [torch.load(out / f"{number}.pt") for number in range(2)]


@pytest.mark.ddp
@pytest.mark.parametrize("case", TEXT_CASES)
def test_two_ranks_equal_one_process(case: str, tiny_folder: Callable[..., Path], on_two_ranks: list[Any]) -> None:
    """T18: contrastive losses take their candidates from both ranks, with gradients, and buffers stay as one process's.

    Each row draws what it would draw in one process.
    """
    method, model = make(case), build(tiny_folder("bert", 0.0), case)
    for _ in range(2):
        torch.manual_seed(5)
        expected = gradients(method, model, eight(), still=False)
    # Not each parameter by its own size: a key's bias has a gradient of rounding errors, softmax ignores it.
    noise = 1e-5 * flat(expected).abs().max().item()
    for found in on_two_ranks:
        got, buffers = found[case]
        for name in set(expected) | set(got):
            zero = torch.zeros_like(expected.get(name, got.get(name)))
            torch.testing.assert_close(got.get(name, zero), expected.get(name, zero), rtol=1e-3, atol=noise)
        assert buffers.keys() == method.state_dict().keys()
        for name, value in method.state_dict().items():
            # A buffer may be NaN until it is set.
            torch.testing.assert_close(
                buffers[name], value, rtol=1e-4, atol=1e-5, equal_nan=True, msg=lambda m, n=name: f"{n}: {m}"
            )
            first = on_two_ranks[0][case][1][name]
            torch.testing.assert_close(buffers[name], first, rtol=0, atol=0, equal_nan=True)

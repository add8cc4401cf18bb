"""Images on two ranks: a pass uses one set of a dual batch norm, and leaves the other's unused."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from reference.draws import RowsOf
from reference.driving import settled
from reference.images import CLASSES
from reference.ranks import run_ranks
from reference.spies import dual, told, views
from reference.tiny import take
from torch.nn.parallel import DistributedDataParallel

from contraverse.methods import METHODS
from contraverse.training import step
from contraverse.types import Method

CASES: dict[str, tuple[str, dict[str, Any]]] = {
    **{name: (name, {}) for name in ("simclr", "acl-a2a", "acl-a2s", "acl-ds", "dynacl", "deacl", "selfie")},
    **{name: (name, {}) for name in ("scal", "pgd-at", "trades", "uat", "probe")},
    "probe-pgd": ("probe", {"attack": "pgd"}),
}


CHUNKED = ("scal", "acl-ds", "dynacl")
"""Run in chunks of one row, too."""


def build(case: str) -> tuple[Method, Any]:
    """A method and its model, whose copy has other weights; batch norm's statistics are not those of a rank's rows."""
    name, settings = CASES[case]
    method = METHODS[name](**settings)
    model = dual(method, CLASSES if method.requires == "labels" else None)
    settled(model)
    if method.trainable == "classifier":
        model.freeze_encoder()
    earlier = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in earlier.parameters():
            parameter.mul_(0.9)
    told(method, model=earlier)
    if method.needs_reference_model:
        settled(method.reference_model)
    return method, model


def gradients(method: Method, model: Any, batch: Any, **driving: Any) -> dict[str, torch.Tensor]:
    model.zero_grad()
    torch.manual_seed(5)
    step(method, model, batch, backward=lambda loss: loss.backward(), **driving)
    named = {name.removeprefix("module."): p.grad for name, p in model.named_parameters()}
    return {name: grad for name, grad in named.items() if grad is not None}


def _on_a_rank(number: int, out: Path) -> None:
    found = {}
    for name in CASES:
        method, model = build(name)
        ddp = DistributedDataParallel(model, find_unused_parameters=True)
        mine = take(views(4), slice(2 * number, 2 * number + 2))
        with RowsOf(number, 2, 2):
            found[name] = gradients(method, ddp, mine, no_sync=ddp.no_sync)
        if name in CHUNKED:
            method, _ = build(name)
            with RowsOf(number, 2, 2):
                found[f"{name} in chunks"] = gradients(method, ddp, mine, no_sync=ddp.no_sync, contrast_chunk=1)
    torch.save(found, out / f"{number}.pt")


@pytest.mark.ddp
def test_two_ranks_equal_one_process(tmp_path: Path) -> None:
    """In chunks of one row, too, with candidates of both ranks."""
    run_ranks(_on_a_rank, tmp_path)
    ranks = [torch.load(tmp_path / f"{number}.pt") for number in range(2)]
    for name in CASES:
        expected = gradients(*build(name), views(4))
        largest = max(grad.abs().max().item() for grad in expected.values())
        results = [rank[case] for rank in ranks for case in (name, f"{name} in chunks") if case in rank]
        for result in results:
            assert result.keys() == expected.keys()
            for parameter, grad in expected.items():
                torch.testing.assert_close(
                    result[parameter], grad, rtol=1e-3, atol=1e-4 * largest,
                    msg=lambda m, n=f"{name} {parameter}": f"{n}: {m}",
                )  # fmt: skip
        assert len(results) == 2 * (1 + (name in CHUNKED))

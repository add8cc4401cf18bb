"""Batch norm over the rows of two processes, against torch's own over all rows in one."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from reference.ranks import run_ranks
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from contraverse.errors import UserError
from contraverse.models import ImageModel
from contraverse.models.dual_bn import DualBatchNorm, to_dual
from contraverse.models.heads import mlp
from contraverse.models.sync_bn import to_synced

PARTS = (slice(0, 3), slice(3, 8))
"""The rows of each process: not the same number."""


def cases() -> dict[str, tuple[nn.Module, Tensor]]:
    """Modules with batch norm, and eight rows for each."""
    torch.manual_seed(3)
    images = torch.randn(8, 4, 5, 5)
    return {
        "1d": (nn.BatchNorm1d(4), torch.randn(8, 4)),
        "1d of sequences": (nn.BatchNorm1d(4), torch.randn(8, 4, 6)),
        "2d": (nn.BatchNorm2d(4), images),
        "3d": (nn.BatchNorm3d(4), images[..., None]),
        # A spread that squares of the values would lose: the mean is 3,000 times as large.
        "far from zero": (nn.BatchNorm2d(4), 3000 + images),
        "cumulative": (nn.BatchNorm2d(4, momentum=None), images),
        "without weights": (nn.BatchNorm2d(4, affine=False), images),
        "without running ones": (nn.BatchNorm2d(4, track_running_stats=False), images),
        "head": (mlp(6, 5, 2), torch.randn(8, 6)),
        "dual head": (to_dual(mlp(6, 5, 2)), torch.randn(8, 6)),
        "bfloat16": (nn.BatchNorm2d(4), images.bfloat16()),
        "channels last": (nn.BatchNorm2d(4), images.contiguous(memory_format=torch.channels_last)),
    }


def passed(module: nn.Module, x: Tensor, rows: slice, *, share: float) -> dict[str, Any]:
    """Two steps in training mode: outputs, gradients, and what is kept. ``share``: factor of the loss."""
    for parameter in module.parameters():
        parameter.data.add_(torch.linspace(0, 1, parameter.numel()).view_as(parameter))
    target = torch.sin(torch.arange(x.numel(), dtype=torch.float32)).view_as(x)
    outputs, grads = [], []
    for scale in (1.0, 2.0):
        leaf = (x * scale)[rows].detach().requires_grad_()
        out = module(leaf)
        wide = target if out.shape == leaf.shape else target.flatten(1)[:, : out.shape[1]]
        (out.float() * wide[rows].reshape(out.shape)).square().sum().mul(share).backward()
        outputs.append(out.detach())
        grads.append(leaf.grad)
    return {
        "outputs": outputs,
        "grads": grads,
        "weights": {name: p.grad for name, p in module.named_parameters() if p.grad is not None},
        "state": {name: value.clone() for name, value in module.state_dict().items()},
        "eval": module.eval()(x[rows]).detach(),
    }


def _on_a_rank(number: int, out: Path) -> None:
    kept = {}
    for name, (module, x) in cases().items():
        before = list(module.state_dict())
        synced = to_synced(module)
        assert list(synced.state_dict()) == before
        assert to_synced(synced) is synced
        # DDP divides the sum of both processes by two.
        if any(p.requires_grad for p in synced.parameters()):
            synced = DistributedDataParallel(synced, find_unused_parameters="dual" in name)
        kept[name] = passed(synced, x, PARTS[number], share=2.0)
        for part in ("weights", "state"):
            kept[name][part] = {key.removeprefix("module."): value for key, value in kept[name][part].items()}
    torch.save(kept, out / f"{number}.pt")


@pytest.mark.ddp
def test_two_processes_are_one_with_all_rows(tmp_path: Path) -> None:
    run_ranks(_on_a_rank, tmp_path)
    ranks = [torch.load(tmp_path / f"{number}.pt") for number in range(2)]
    for name, (module, x) in cases().items():
        expected = passed(module, x, slice(None), share=1.0)
        close = {"rtol": 2e-2, "atol": 2e-2} if name == "bfloat16" else {"rtol": 1e-4, "atol": 1e-5}
        if name == "far from zero":  # of the outputs; fp32 has no more digits of 3,000
            close = {"rtol": 1e-2, "atol": 2e-3}
        for rows, rank in zip(PARTS, ranks, strict=True):
            for step in range(2):
                torch.testing.assert_close(rank[name]["outputs"][step], expected["outputs"][step][rows], **close)
            # The loss of a process is scaled by two, and its inputs' gradient with it.
            for step in range(2):
                torch.testing.assert_close(rank[name]["grads"][step] / 2, expected["grads"][step][rows], **close)
            if name != "without running ones":  # which in eval mode are those of the batch at hand
                torch.testing.assert_close(rank[name]["eval"], expected["eval"][rows], **close)
            for part in ("weights", "state"):
                assert rank[name][part].keys() == expected[part].keys(), name
                for key, value in expected[part].items():
                    torch.testing.assert_close(
                        rank[name][part][key], value, **close, msg=lambda m, n=f"{name} {key}": f"{n}: {m}"
                    )


def test_in_one_process_it_is_torchs_own() -> None:
    module, x = cases()["head"]
    synced = to_synced(copy.deepcopy(module))
    assert torch.equal(synced(x), module(x))
    assert all(torch.equal(a, b) for a, b in zip(synced.buffers(), module.buffers(), strict=True))


def test_both_sets_and_the_heads_are_synchronised() -> None:
    model = ImageModel.from_pretrained("resnet8", labels=["a", "b"], dual=True)
    parameters = list(model.parameters())
    assert to_synced(model) is model
    norms = [part for part in model.modules() if isinstance(part, nn.BatchNorm2d)]
    duals = [part for part in model.modules() if isinstance(part, DualBatchNorm)]
    assert len(norms) == 2 * len(duals) > 0
    assert all(type(norm).__name__ == "SyncedBatchNorm2d" for norm in norms)
    assert all(a is b for a, b in zip(parameters, model.parameters(), strict=True))


def test_a_batch_norm_of_another_kind_is_refused() -> None:
    class WithActivation(nn.BatchNorm2d):
        """As some libraries have it."""

    with pytest.raises(UserError, match=r"WithActivation[\s\S]*false"):
        to_synced(nn.Sequential(WithActivation(3)))

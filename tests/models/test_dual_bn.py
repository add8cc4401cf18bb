"""Dual batch norm: one set a bn_branch, whatever the module, and back to an ordinary network."""

import copy

import pytest
import torch
from reference.images import buffers, image_batch, shaken, tiny
from torch import nn

from contraverse.models.dual_bn import DualBatchNorm, routed, to_dual, to_plain
from contraverse.types import BNBranch, HeadSpec

MLP = {"z": HeadSpec(kind="mlp")}
ROUTES: tuple[BNBranch, BNBranch] = ("clean", "adversarial")
each = pytest.mark.parametrize("bn_branch", ROUTES)


def network() -> nn.Sequential:
    """Two batch norms of different dimensions, one of them in a module of its own."""
    block = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4, momentum=0.3, eps=1e-4), nn.ReLU())
    return nn.Sequential(block, nn.Flatten(), nn.Linear(4 * 36, 5), nn.BatchNorm1d(5))


def test_both_sets_begin_as_the_batch_norm_was() -> None:
    plain = shaken(network()).eval()
    dual = to_dual(copy.deepcopy(plain))
    x = torch.rand(4, 3, 8, 8)
    for bn_branch in ROUTES:
        with routed(dual, bn_branch):
            assert torch.equal(dual(x), plain(x))
    norms = [m for m in dual.modules() if isinstance(m, DualBatchNorm)]
    assert len(norms) == 2
    assert {(n.adversarial.momentum, n.adversarial.eps) for n in norms} == {(0.3, 1e-4), (0.1, 1e-5)}
    assert all(n.clean.weight is not n.adversarial.weight for n in norms)


@each
def test_a_pass_updates_its_own_route_alone_and_once(bn_branch: BNBranch) -> None:
    """Trap 2, heads included."""
    model = tiny(dual=True, heads=MLP).train()
    before = buffers(model)
    model(image_batch(), want=("z", "logits"), bn_branch=bn_branch)
    after = buffers(model)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    own = {name for name in before if f".{bn_branch}." in name}
    assert changed == own
    assert any("heads" in name for name in own)
    counters = [name for name in own if name.endswith("num_batches_tracked")]
    assert counters
    assert all(after[name] == before[name] + 1 for name in counters)


@each
def test_a_plain_network_of_one_set_gives_the_logits_of_its_route(bn_branch: BNBranch) -> None:
    """Trap 3: and not those of the other."""
    model, batch = tiny(dual=True), image_batch()
    other: BNBranch = "clean" if bn_branch == "adversarial" else "adversarial"
    with torch.no_grad():
        found = model.plain(bn_branch)(batch["pixel_values"])
        torch.testing.assert_close(found, model(batch, bn_branch=bn_branch).logits, rtol=0, atol=1e-6)
        assert (found - model(batch, bn_branch=other).logits).abs().max() > 1e-2
    assert not any(isinstance(m, DualBatchNorm) for m in model.plain(bn_branch).modules())


@each
def test_gradients_are_right_when_backward_comes_after_the_route_was_left(bn_branch: BNBranch) -> None:
    plain = shaken(network())
    dual = to_dual(copy.deepcopy(plain))
    x = torch.rand(4, 3, 8, 8, requires_grad=True)
    with routed(dual, bn_branch):
        out = dual(x)
    with routed(dual, "clean"):
        dual(x.detach())
    (found,) = torch.autograd.grad(out.square().sum(), x, retain_graph=True)
    (expected,) = torch.autograd.grad(plain(x).square().sum(), x)
    torch.testing.assert_close(found, expected)
    out.square().sum().backward()
    with_gradient = {name for name, p in dual.named_parameters() if p.grad is not None}
    other = "clean" if bn_branch == "adversarial" else "adversarial"
    assert not any(f".{other}." in name for name in with_gradient)
    assert sum(f".{bn_branch}." in name for name in with_gradient) == 4


def test_two_routes_in_one_graph_each_have_their_own_gradient() -> None:
    dual = to_dual(shaken(network()))
    x = torch.rand(4, 3, 8, 8)
    with routed(dual, "clean"):
        clean = dual(x)
    with routed(dual, "adversarial"):
        adversarial = dual(x + 0.1)
    (clean.square().sum() + adversarial.square().sum()).backward()
    together = {name: p.grad for name, p in dual.named_parameters()}
    assert all(grad is not None for grad in together.values())
    dual.zero_grad()
    with routed(dual, "adversarial"):
        dual(x + 0.1).square().sum().backward()
    for name, parameter in dual.named_parameters():
        if "adversarial" in name:
            torch.testing.assert_close(together[name], parameter.grad)


def test_what_is_used_twice_stays_one() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = self.second = nn.BatchNorm1d(3)
            self.inner = nn.Sequential(self.first)

    for convert in (to_dual, lambda m: to_plain(to_dual(m), "adversarial")):
        module = convert(Shared())
        assert module.first is module.second
        assert module.first is module.inner[0]
        assert len({id(m) for m in module.modules() if isinstance(m, nn.BatchNorm1d)}) in (1, 2)
    assert isinstance(module.first, nn.BatchNorm1d)


def test_a_batch_norm_alone_and_a_dual_one_can_be_given() -> None:
    norm = nn.BatchNorm3d(2)
    dual = to_dual(norm)
    assert isinstance(dual, DualBatchNorm)
    assert dual.clean is norm
    assert to_dual(dual) is dual
    assert to_dual(nn.Sequential(dual))[0] is dual
    assert to_plain(dual, "clean") is norm
    assert to_plain(dual, "adversarial") is dual.adversarial


def test_other_norms_are_left_alone_and_synchronised_ones_keep_their_group() -> None:
    group = object()
    norms = nn.Sequential(nn.GroupNorm(1, 2), nn.InstanceNorm2d(2), nn.LayerNorm(2), nn.SyncBatchNorm(2, 1e-5, 0.1))
    norms[3].process_group = group
    to_dual(norms)
    assert [type(m) for m in norms] == [nn.GroupNorm, nn.InstanceNorm2d, nn.LayerNorm, DualBatchNorm]
    assert norms[3].clean.process_group is norms[3].adversarial.process_group is group
    shaken(norms).eval()
    x = torch.rand(2, 2, 4, 4)
    for bn_branch in ROUTES:
        with routed(norms[3], bn_branch):
            chosen = getattr(norms[3], bn_branch)
            assert torch.equal(norms[3](x), nn.functional.batch_norm(
                x, chosen.running_mean, chosen.running_var, chosen.weight, chosen.bias))  # fmt: skip


def test_dual_batch_norm_can_be_synchronised_later() -> None:
    model = nn.SyncBatchNorm.convert_sync_batchnorm(to_dual(network()))
    (first, second) = [m for m in model.modules() if isinstance(m, DualBatchNorm)]
    for dual in (first, second):
        assert isinstance(dual.clean, nn.SyncBatchNorm)
        assert isinstance(dual.adversarial, nn.SyncBatchNorm)


def test_the_route_comes_back_after_an_error_and_out_of_another_route() -> None:
    dual = to_dual(nn.BatchNorm1d(2))
    assert isinstance(dual, DualBatchNorm)
    with routed(dual, "adversarial"):
        with routed(dual, "clean"):
            assert dual.bn_branch == "clean"
        assert dual.bn_branch == "adversarial"
        with pytest.raises(ZeroDivisionError), routed(dual, "clean"):
            raise ZeroDivisionError
        assert dual.bn_branch == "adversarial"
    assert dual.bn_branch == "clean"


def test_a_route_that_does_not_exist_is_refused() -> None:
    model = tiny(dual=True)
    wrong: BNBranch = "pgd"  # type: ignore[assignment]
    with pytest.raises(ValueError, match="clean, adversarial"):
        model(image_batch(), bn_branch=wrong)
    with pytest.raises(ValueError, match="pgd"):
        to_plain(model, wrong)
    dual = to_dual(nn.BatchNorm1d(2))
    dual.bn_branch = wrong  # type: ignore[assignment]
    with pytest.raises(ValueError, match="pgd"):
        dual(torch.rand(3, 2))


def test_a_model_without_batch_norm_ignores_the_route() -> None:
    model, batch = tiny(), image_batch()
    assert torch.equal(model(batch).logits, model(batch, bn_branch="adversarial").logits)

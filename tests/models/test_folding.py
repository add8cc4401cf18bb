"""Batch norm within convolutions: during an attack alone, the same numbers, and never where somebody looks on."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytest
import torch
import torch.nn.utils.parametrize as parametrize
from reference.images import image_batch, shaken, tiny
from torch import Tensor, nn
from torch.nn.utils import prune
from torch.utils._python_dispatch import TorchDispatchMode

from contraverse.evaluation.images.pixels import as_classifier
from contraverse.methods import PGDAdversarialTraining
from contraverse.models import attacking, evaluating
from contraverse.models.dual_bn import to_dual
from contraverse.models.resnet import BasicBlock, Bottleneck, ResNet, WideResNet

NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "basic": lambda: ResNet(BasicBlock, (1, 2), 4),
    "option-a": lambda: ResNet(BasicBlock, (1, 2), 4, projected=False),
    "bottleneck": lambda: ResNet(Bottleneck, (1, 2), 4),
    "wide": lambda: WideResNet(10, 1),
    "dual": lambda: to_dual(ResNet(BasicBlock, (1, 2), 4)),
}
Mode = Callable[[nn.Module], AbstractContextManager[None]]


class BatchNorms(TorchDispatchMode):
    """Counts the batch norms that are computed by themselves."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += "batch_norm" in str(func) and "backward" not in str(func)
        return func(*args, **(kwargs or {}))


@contextmanager
def training(model: nn.Module) -> Iterator[None]:
    model.train()
    yield
    model.eval()


def layers(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """Convolutions and batch norms; of a dual one both the norm and its clean set."""
    kinds = (nn.Conv2d, nn.BatchNorm2d)
    return [(n, part) for n, part in model.named_modules() if isinstance(part, kinds) and "adversarial" not in n]


def run(model: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """Features, and the gradient to the pixels of a number that depends on all of them."""
    pixels = x.clone().requires_grad_()
    h = model(pixels)
    (grad,) = torch.autograd.grad((h * torch.arange(h.shape[1])).cos().sum(), pixels)
    return h.detach(), grad


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("mode", [evaluating, training, attacking])
@pytest.mark.parametrize("kind", ["forward", "pre", "backward"])
def test_hooks_of_every_layer_fire_in_every_mode(name: str, mode: Mode, kind: str) -> None:
    """During an attack too: layers with hooks are called as ever."""
    model, fired = NETWORKS[name]().eval(), set[str]()
    for layer, part in layers(model):
        register: Any = {
            "forward": part.register_forward_hook,
            "pre": part.register_forward_pre_hook,
            "backward": part.register_full_backward_hook,
        }[kind]
        register(lambda *_, layer=layer: fired.add(layer))
    with mode(model):
        run(model, torch.rand(2, 3, 8, 8))
    assert fired == {layer for layer, _ in layers(model)}


def test_a_hook_sees_what_its_batch_norm_gave() -> None:
    """Nothing is rectified in place afterwards."""
    model, kept = shaken(ResNet(BasicBlock, (1,), 4)).eval(), list[Tensor]()
    model.get_submodule("layer1.0.bn1").register_forward_hook(lambda _m, _a, out: kept.append(out))
    with attacking(model):
        model(torch.rand(2, 3, 8, 8))
    assert (kept[0] < 0).any()


@pytest.mark.parametrize("name", NETWORKS)
def test_an_attack_sees_the_same_numbers_and_gradients(name: str) -> None:
    """To within rounding; with fewer batch norms."""
    model, x = shaken(NETWORKS[name]()).eval(), torch.rand(3, 3, 8, 8)
    with torch.no_grad(), attacking(model):
        single = model(x)
    torch.testing.assert_close(single, model(x), rtol=1e-4, atol=1e-4)
    model, x = model.double(), x.double()
    with BatchNorms() as apart, evaluating(model):
        expected = run(model, x)
    with BatchNorms() as folded, attacking(model):
        found = run(model, x)
    for value, wanted in zip(found, expected, strict=True):
        torch.testing.assert_close(value, wanted, rtol=1e-9, atol=1e-9)
    assert folded.count < apart.count
    assert folded.count == (0 if name != "wide" else 4)  # those before a convolution have nothing to be folded into
    with BatchNorms() as again:
        run(model, x)
    assert again.count == apart.count


def test_what_is_no_plain_pair_is_left_as_it_is() -> None:
    """Pruned by a hook, parametrized, replaced by another's layer, or without weights of its own."""

    class Doubled(nn.Module):
        def forward(self, weight: Tensor) -> Tensor:
            return 2 * weight

    model = shaken(ResNet(BasicBlock, (2, 1), 4)).eval()
    stem: Any = model.get_submodule("conv1")
    prune.random_unstructured(stem, "weight", amount=0.5)
    with torch.no_grad():
        stem.weight_orig.mul_(3)  # what pruning made of the weight before is old now
    parametrize.register_parametrization(model.get_submodule("layer1.0.conv1"), "weight", Doubled())
    block: Any = model.get_submodule("layer1.1")
    block.conv2 = nn.Sequential(block.conv2, nn.Tanh())
    block.bn1 = nn.BatchNorm2d(4, affine=False).eval()
    model.get_submodule("layer2.0").bn2 = nn.Identity()  # type: ignore[assignment]
    x = torch.rand(2, 3, 8, 8)
    expected = run(model, x)
    with attacking(model):
        found = run(model, x)
    for value, wanted in zip(found, expected, strict=True):
        torch.testing.assert_close(value, wanted, rtol=1e-4, atol=1e-5)


def _fail_in_an_attack(model: ResNet) -> None:
    with attacking(model), attacking(model):
        assert model.folds
        raise RuntimeError("within")


def test_flags_and_modes_are_put_back_after_an_error() -> None:
    model = ResNet(BasicBlock, (1,), 4).train()
    model.get_submodule("layer1.0").eval()
    before = [(part.training, getattr(part, "folds", None)) for part in model.modules()]
    with pytest.raises(RuntimeError, match="within"):
        _fail_in_an_attack(model)
    assert [(part.training, getattr(part, "folds", None)) for part in model.modules()] == before
    assert not model.folds


def test_a_plain_network_is_ordinary_and_attacks_fold() -> None:
    """``plain()``, predictions and the passes that train call each layer; a method's attack and evaluations do not."""
    model = tiny()
    network, x = model.plain(), image_batch()
    for call in (lambda: network(x["pixel_values"]), lambda: model(x), lambda: model.train()(x)):
        with BatchNorms() as counted:
            call()
        assert counted.count == 7
    with BatchNorms() as counted:
        list(PGDAdversarialTraining(steps=3).losses(model, x))
    assert counted.count == 7  # of the one pass that is trained on
    with as_classifier(model, "clean") as classifier, BatchNorms() as counted:
        classifier(x["pixel_values"])
    assert counted.count == 0

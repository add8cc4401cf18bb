"""Residual networks: sizes and names as published, the maths written out, and real weights."""

import copy
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from reference.images import CIFAR10, SHARED, buffers, cifar10_test, features, shaken
from torch import Tensor, nn

from contraverse.models import attacking, evaluating
from contraverse.models.dual_bn import routed, to_dual
from contraverse.models.image import ImageModel
from contraverse.models.resnet import BACKBONES, BasicBlock, Bottleneck, ResNet, Shorten, WideResNet
from contraverse.types import BNBranch

RESNET20 = SHARED / "models" / "resnet20_cifar10.safetensors"

STEM = 64 * 3 * 3 * 3 - 64 * 3 * 7 * 7
"""By how much the stem for small images is smaller than ImageNet's."""
PUBLISHED = {
    # torchvision's counts for ImageNet, their classifier taken off and their stem made smaller.
    "resnet18": 11_689_512 - 513_000 + STEM,
    "resnet34": 21_797_672 - 513_000 + STEM,
    "resnet50": 25_557_032 - 2_049_000 + STEM,
    # For CIFAR-10, the classifier taken off.
    "wrn-34-10": 46_160_474 - 6_410,
    "resnet20": 269_722 - 650,
    "wrn-28-10": 36_479_194 - 6_410,
    "wrn-34-20": 184_531_674 - 12_810,
    "wrn-70-16": 266_796_506 - 10_250,
    "silu-wrn-28-10": 36_479_194 - 6_410,
    "silu-wrn-34-10": 46_160_474 - 6_410,
    "silu-wrn-34-20": 184_531_674 - 12_810,
    "silu-wrn-70-16": 266_796_506 - 10_250,
    "preact-resnet18": 11_171_146 - 5_130,
    "preact-resnet18-raw": 11_171_146 - 5_130,
    "preact-resnet18-bn": 11_172_170 - 5_130,
    # Shortcuts of 3 x 3 in the place of 1 x 1, and a last batch norm.
    "silu-preact-resnet18": 11_171_146 - 5_130 + 8 * (64 * 128 + 128 * 256 + 256 * 512) + 1_024,
    "resnet8": 16 * 27
    + 32
    + 2 * (16 * 16 * 9 + 32)
    + 32 * 16 * 9
    + 32 * 32 * 9
    + 128
    + 64 * 32 * 9
    + 64 * 64 * 9
    + 256,
}


@pytest.mark.parametrize("name", list(BACKBONES))
def test_a_backbone_is_as_large_as_published(name: str) -> None:
    with torch.device("meta"):
        backbone = BACKBONES[name]()
    assert sum(p.numel() for p in backbone.parameters()) == PUBLISHED[name]
    assert PUBLISHED["resnet18"] == 11_168_832


def test_parameters_are_called_as_in_torchvision() -> None:
    norm = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    expected = {"conv1.weight", *(f"bn1.{part}" for part in norm)}
    for layer in (1, 2, 3, 4):
        for block in (0, 1):
            name = f"layer{layer}.{block}"
            expected |= {f"{name}.conv{i}.weight" for i in (1, 2)}
            expected |= {f"{name}.bn{i}.{part}" for i in (1, 2) for part in norm}
            if layer > 1 and block == 0:
                expected |= {f"{name}.downsample.0.weight", *(f"{name}.downsample.1.{part}" for part in norm)}
    with torch.device("meta"):
        assert set(BACKBONES["resnet18"]().state_dict()) == expected
        deeper = set(BACKBONES["resnet50"]().state_dict())
    assert {"layer1.0.downsample.0.weight", "layer3.5.conv3.weight", "layer4.2.bn3.running_var"} <= deeper


@pytest.mark.parametrize(
    "backbone",
    [
        ResNet(BasicBlock, (2, 1, 1), 4),
        ResNet(BasicBlock, (1, 2), 4, projected=False),
        ResNet(Bottleneck, (1, 2), 4),
        BACKBONES["resnet8"](),
    ],
    ids=["projected", "option-a", "bottleneck", "resnet8"],
)
@torch.no_grad()
def test_features_are_those_of_the_weights_written_out(backbone: ResNet) -> None:
    shaken(backbone).eval()
    x = torch.randn(3, 3, 16, 16)
    expected = features(backbone.state_dict(), x)
    assert expected.shape == (3, backbone.width)
    torch.testing.assert_close(backbone(x), expected, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_a_wide_block_reads_its_shortcut_after_the_first_batch_norm_where_the_shape_changes() -> None:
    backbone = shaken(WideResNet(10, 1)).eval()
    x = torch.randn(2, 3, 8, 8)
    out: Tensor = backbone.conv1(x)
    for number, stride in ((1, 1), (2, 2), (3, 2)):
        block = backbone.get_submodule(f"block{number}.layer.0")
        before = block.bn1(out).relu()
        shortcut = out
        if block.convShortcut is not None:
            shortcut = nn.functional.conv2d(before, block.convShortcut.weight, stride=stride)
        inner = nn.functional.conv2d(before, block.conv1.weight, stride=stride, padding=1)
        out = nn.functional.conv2d(block.bn2(inner).relu(), block.conv2.weight, padding=1) + shortcut
    expected = backbone.bn1(out).relu().mean((2, 3))
    torch.testing.assert_close(backbone(x), expected, rtol=1e-4, atol=1e-5)
    assert backbone.get_submodule("block1.layer.0").convShortcut is None


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("bn_branch", ["clean", "adversarial"])
def test_a_convolution_with_its_batch_norm_has_the_gradients_of_the_two(training: bool, bn_branch: BNBranch) -> None:
    """In fp64, of weights, batch norm and pixels; in training mode by the statistics of the batch, which are kept."""
    mine = to_dual(shaken(ResNet(Bottleneck, (1, 2), 4))).double().train(training)
    plain = copy.deepcopy(mine)
    shaken(plain.get_submodule("bn1.adversarial"))
    mine.load_state_dict(plain.state_dict())
    x = torch.randn(4, 3, 8, 8, dtype=torch.float64)
    found = []
    for network, run in ((mine, mine), (plain, lambda x: layer_by_layer(plain, x))):
        pixels = x.clone().requires_grad_()
        folding = attacking(network) if network is mine and not training else nullcontext()
        with folding, routed(network, bn_branch):
            (run(pixels) ** 2).sum().backward()
        found.append({"x": pixels.grad, **{name: p.grad for name, p in network.named_parameters()}, **buffers(network)})
    for name, value in found[1].items():
        if value is None:
            assert found[0][name] is None or not found[0][name].any(), name
        else:
            torch.testing.assert_close(found[0][name], value, rtol=1e-9, atol=1e-9)


def layer_by_layer(network: Any, x: Tensor) -> Tensor:
    """A `ResNet` of bottlenecks with convolution and batch norm one after the other."""
    x = network.bn1(network.conv1(x)).relu()
    for number in range(network.stages):
        for block in network.get_submodule(f"layer{number + 1}"):
            out = block.bn2(block.conv2(block.bn1(block.conv1(x)).relu())).relu()
            x = (block.bn3(block.conv3(out)) + (x if block.downsample is None else block.downsample(x))).relu()
    return x.mean((2, 3))


def test_the_shortcut_without_weights_is_option_a() -> None:
    x = torch.randn(1, 2, 4, 4)
    out = Shorten(4, 2)(x)
    assert out.shape == (1, 4, 2, 2)
    assert torch.equal(out[:, 1:3], x[:, :, [0, 2]][..., [0, 2]])
    assert (out[:, [0, 3]] == 0).all()


def test_the_stem_keeps_the_size_of_the_image_and_later_stages_halve_it() -> None:
    seen: list[tuple[int, ...]] = []
    backbone = ResNet(BasicBlock, (1, 1, 1), 4)
    for number in (1, 2, 3):
        backbone.get_submodule(f"layer{number}").register_forward_hook(lambda _m, _a, out: seen.append(out.shape[1:]))
    backbone(torch.zeros(2, 3, 8, 8))
    assert seen == [(4, 8, 8), (8, 4, 4), (16, 2, 2)]


def test_convolutions_are_drawn_as_torchvision_draws_them() -> None:
    """He et al.'s initialisation by the number of outputs: std = sqrt(2 / (9 * outputs))."""
    weight = ResNet(BasicBlock, (1, 1), 64).get_submodule("layer2.0.conv1").weight
    assert weight.shape == (128, 64, 3, 3)
    assert weight.std().item() == pytest.approx((2 / (9 * 128)) ** 0.5, rel=0.03)


@pytest.mark.slow
@pytest.mark.skipif(not (RESNET20.is_file() and CIFAR10.is_file()), reason="needs ../shared/data")
@torch.no_grad()
def test_a_published_resnet_20_is_as_accurate_as_its_authors_say() -> None:
    """91.73 % on all 10,000 images; of 500, two standard errors are 2.5 points."""
    model = ImageModel.from_checkpoint(RESNET20)
    assert model.backbone == "resnet20"
    pixels, labels = cifar10_test(500)
    with evaluating(model):
        logits = torch.cat([model({"pixel_values": part}).logits for part in pixels.split(100)])
    accuracy = (logits.argmax(1) == labels).float().mean().item() * 100
    assert accuracy == pytest.approx(91.73, abs=2.5)

"""Residual networks for small images: features (B, H) of normalised pixels (B, 3, H, W), without a classifier.

All have the stem for 32 x 32 images: a 3 x 3 convolution of stride 1 and no max-pooling. Parameters are called as in
torchvision, so that weights can be exchanged; those of `WideResNet` as in the papers' own code.
"""

from collections.abc import Callable
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from contraverse.models.dual_bn import DualBatchNorm
from contraverse.models.modes import Folding, is_hooked
from contraverse.models.preact import PreActResNet, SiluPreActResNet, SiluWideResNet
from contraverse.models.sync_bn import SyncedBatchNorm2d


def _conv(inputs: int, outputs: int, size: int = 3, stride: int = 1) -> nn.Conv2d:
    conv = nn.Conv2d(inputs, outputs, size, stride, padding=size // 2, bias=False)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    return conv


def _normed(conv: nn.Module, norm: nn.Module, x: Tensor, folds: bool) -> Tensor:
    """``norm(conv(x))``; where the block ``folds``, as one convolution, if both are torch's own and without hooks."""
    batch_norm: Any = norm.of(norm.bn_branch) if isinstance(norm, DualBatchNorm) else norm
    if folds and _fold(conv, batch_norm) and not is_hooked(conv, norm, batch_norm):
        assert isinstance(conv, nn.Conv2d)
        scale = batch_norm.weight * (batch_norm.running_var + batch_norm.eps).rsqrt()  # (outputs,)
        weight, shift = conv.weight * scale.view(-1, 1, 1, 1), batch_norm.bias - batch_norm.running_mean * scale
        return F.conv2d(x, weight, shift, conv.stride, conv.padding, conv.dilation, conv.groups)
    normed: Tensor = norm(conv(x))
    return normed


def _fold(conv: nn.Module, norm: nn.Module) -> bool:
    """True where one convolution can do the work of both: batch norm in eval mode, with weights and statistics."""
    if type(conv) is not nn.Conv2d or conv.bias is not None or conv.padding_mode != "zeros" or norm.training:
        return False
    ordinary = type(norm) in (nn.BatchNorm2d, nn.SyncBatchNorm, SyncedBatchNorm2d)
    return ordinary and all(part is not None for part in (norm.weight, norm.running_mean, norm.running_var))


def _rectified(conv: nn.Module, norm: nn.Module, x: Tensor, folds: bool) -> Tensor:
    """``relu(norm(conv(x)))``: in place, unless a hook may have kept what the batch norm gave."""
    return F.relu(_normed(conv, norm, x, folds), inplace=not is_hooked(norm, *norm.children()))


class Shorten(nn.Module):
    """He et al.'s option A, a shortcut without weights: every ``stride``-th pixel, zeros for the further channels."""

    def __init__(self, channels: int, stride: int) -> None:
        super().__init__()
        self.channels, self.stride = channels, stride

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, channels, H / stride, W / stride)."""
        more = self.channels - x.shape[1]
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, more // 2, more - more // 2))


def _shortcut(downsample: nn.Module | None, x: Tensor, folds: bool) -> Tensor:
    if downsample is None:
        return x
    if folds and isinstance(downsample, nn.Sequential) and not is_hooked(downsample):
        conv, norm = downsample
        return _normed(conv, norm, x, folds)
    shorter: Tensor = downsample(x)
    return shorter


class BasicBlock(Folding):
    """Two 3 x 3 convolutions and a shortcut: of ResNet-18, -34 and the small ones."""

    widening = 1

    def __init__(self, inputs: int, width: int, stride: int, downsample: nn.Module | None) -> None:
        super().__init__()
        self.conv1, self.bn1 = _conv(inputs, width, 3, stride), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = _conv(width, width), nn.BatchNorm2d(width)
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, width, H / stride, W / stride)."""
        out = _rectified(self.conv1, self.bn1, x, self.folds)
        out = _normed(self.conv2, self.bn2, out, self.folds)
        return F.relu(out + _shortcut(self.downsample, x, self.folds), inplace=True)


class Bottleneck(Folding):
    """1 x 1, 3 x 3 and 1 x 1 convolutions and a shortcut: of ResNet-50. The stride is the 3 x 3 one's."""

    widening = 4

    def __init__(self, inputs: int, width: int, stride: int, downsample: nn.Module | None) -> None:
        super().__init__()
        wide = width * self.widening
        self.conv1, self.bn1 = _conv(inputs, width, 1), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = _conv(width, width, 3, stride), nn.BatchNorm2d(width)
        self.conv3, self.bn3 = _conv(width, wide, 1), nn.BatchNorm2d(wide)
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, 4 * width, H / stride, W / stride)."""
        out = _rectified(self.conv1, self.bn1, x, self.folds)
        out = _rectified(self.conv2, self.bn2, out, self.folds)
        out = _normed(self.conv3, self.bn3, out, self.folds)
        return F.relu(out + _shortcut(self.downsample, x, self.folds), inplace=True)


class ResNet(Folding):
    """Stages ``layer1``, ``layer2``, ... of residual blocks; each but the first halves the image and doubles the width.

    Args:
        block: `BasicBlock` or `Bottleneck`.
        depths: blocks of each stage.
        width: channels of the first stage.
        projected: whether a shortcut that changes shape is a 1 x 1 convolution (torchvision), or has no weights
            (`Shorten`, He et al.'s networks for CIFAR).

    Attributes:
        width: H, of the features.
    """

    def __init__(
        self,
        block: type[BasicBlock] | type[Bottleneck],
        depths: tuple[int, ...],
        width: int = 64,
        *,
        projected: bool = True,
    ) -> None:
        super().__init__()
        self.conv1, self.bn1 = _conv(3, width), nn.BatchNorm2d(width)
        inputs, self.stages = width, len(depths)
        for number, depth in enumerate(depths):
            outputs, blocks = width * 2**number, []
            for place in range(depth):
                stride, wide = (2 if number and not place else 1), outputs * block.widening
                shortcut: nn.Module | None = None
                if stride > 1 or inputs != wide:
                    convolution = nn.Sequential(_conv(inputs, wide, 1, stride), nn.BatchNorm2d(wide))
                    shortcut = convolution if projected else Shorten(wide, stride)
                blocks.append(block(inputs, outputs, stride, shortcut))
                inputs = wide
            self.add_module(f"layer{number + 1}", nn.Sequential(*blocks))
        self.width = inputs

    def forward(self, x: Tensor) -> Tensor:
        """Features (B, H), the mean over the last stage's pixels."""
        x = _rectified(self.conv1, self.bn1, x, self.folds)
        for number in range(self.stages):
            x = self.get_submodule(f"layer{number + 1}")(x)
        return x.mean((2, 3))


class WideBlock(Folding):
    """A pre-activation block of a wide residual network."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.bn1, self.conv1 = nn.BatchNorm2d(inputs), _conv(inputs, width, 3, stride)
        self.bn2, self.conv2 = nn.BatchNorm2d(width), _conv(width, width)
        self.convShortcut = _conv(inputs, width, 1, stride) if inputs != width or stride > 1 else None

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, width, H / stride, W / stride)."""
        before = F.relu(self.bn1(x), inplace=not is_hooked(self.bn1, *self.bn1.children()))
        out = self.conv2(_rectified(self.conv1, self.bn2, before, self.folds))
        return out + (x if self.convShortcut is None else self.convShortcut(before))


class WideResNet(nn.Module):
    """Zagoruyko and Komodakis (2016): three stages of ``(depth - 4) / 6`` blocks, ``widen`` times as wide as He's.

    Attributes:
        width: H, of the features.
    """

    def __init__(self, depth: int = 34, widen: int = 10) -> None:
        super().__init__()
        self.conv1, inputs = _conv(3, 16), 16
        for number in range(3):
            outputs = 16 * widen * 2**number
            blocks = []
            for place in range((depth - 4) // 6):
                blocks.append(WideBlock(inputs, outputs, 2 if number and not place else 1))
                inputs = outputs
            stage = nn.Module()
            stage.layer = nn.Sequential(*blocks)
            self.add_module(f"block{number + 1}", stage)
        self.bn1, self.width = nn.BatchNorm2d(inputs), inputs

    def forward(self, x: Tensor) -> Tensor:
        """Features (B, H), the mean over the last stage's pixels."""
        x = self.conv1(x)
        for number in range(3):
            x = self.get_submodule(f"block{number + 1}.layer")(x)
        return F.relu(self.bn1(x)).mean((2, 3))


BACKBONES: dict[str, Callable[[], nn.Module]] = {
    "resnet18": lambda: ResNet(BasicBlock, (2, 2, 2, 2)),
    "resnet34": lambda: ResNet(BasicBlock, (3, 4, 6, 3)),
    "resnet50": lambda: ResNet(Bottleneck, (3, 4, 6, 3)),
    "wrn-34-10": lambda: WideResNet(34, 10),
    "resnet20": lambda: ResNet(BasicBlock, (3, 3, 3), 16, projected=False),
    "resnet8": lambda: ResNet(BasicBlock, (1, 1, 1), 16, projected=False),
    "wrn-28-10": lambda: WideResNet(28, 10),
    "wrn-34-20": lambda: WideResNet(34, 20),
    "wrn-70-16": lambda: WideResNet(70, 16),
    "preact-resnet18": lambda: PreActResNet("activated"),
    "preact-resnet18-raw": lambda: PreActResNet("raw"),
    "preact-resnet18-bn": lambda: PreActResNet("activated", last=True),
    "silu-preact-resnet18": SiluPreActResNet,
    "silu-wrn-28-10": lambda: SiluWideResNet(28, 10),
    "silu-wrn-34-10": lambda: SiluWideResNet(34, 10),
    "silu-wrn-34-20": lambda: SiluWideResNet(34, 20),
    "silu-wrn-70-16": lambda: SiluWideResNet(70, 16),
}
"""Backbones by name; ``resnet20`` and ``resnet8`` are He et al.'s for CIFAR, the latter with one block a stage."""

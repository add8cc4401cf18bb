"""Pre-activation networks whose weights are published for CIFAR: features (B, H) of normalised pixels (B, 3, H, W).

Parameters are called as in the programs that the weights come from, which RobustBench collects: PreActResNet-18 of
several authors, and Gowal et al.'s (2020) PreActResNet-18 and wide residual networks.
"""

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

Form = Literal["activated", "raw"]


def _conv(inputs: int, outputs: int, size: int = 3, stride: int = 1, padding: int | None = None) -> nn.Conv2d:
    conv = nn.Conv2d(inputs, outputs, size, stride, size // 2 if padding is None else padding, bias=False)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    return conv


class PreActBlock(nn.Module):
    """Batch norm and ReLU before each of two 3 x 3 convolutions (He et al., 2016, "Identity mappings").

    Args:
        form: input of a shortcut that changes shape: the ``"activated"`` input, as the paper, or the ``"raw"`` one.
    """

    def __init__(self, inputs: int, width: int, stride: int, form: Form) -> None:
        super().__init__()
        self.bn1, self.conv1 = nn.BatchNorm2d(inputs), _conv(inputs, width, 3, stride)
        self.bn2, self.conv2 = nn.BatchNorm2d(width), _conv(width, width)
        changed = stride > 1 or inputs != width
        self.downsample = nn.Sequential(_conv(inputs, width, 1, stride)) if changed else None
        self.form = form

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, width, H / stride, W / stride)."""
        active = F.relu(self.bn1(x))
        shortcut = x
        if self.downsample is not None:
            shortcut = self.downsample(active if self.form == "activated" else x)
        out: Tensor = self.conv2(F.relu(self.bn2(self.conv1(active))))
        return out + shortcut


class PreActResNet(nn.Module):
    """PreActResNet-18: four stages of two blocks.

    Args:
        form: see `PreActBlock`.
        last: whether batch norm and ReLU follow the last block, as in the paper; many programs leave them out.

    Attributes:
        width: H, of the features.
    """

    width = 512

    def __init__(self, form: Form = "activated", *, last: bool = False) -> None:
        super().__init__()
        self.conv1, inputs = _conv(3, 64), 64
        for number in range(4):
            outputs = 64 * 2**number
            first = PreActBlock(inputs, outputs, 2 if number else 1, form)
            self.add_module(f"layer{number + 1}", nn.Sequential(first, PreActBlock(outputs, outputs, 1, form)))
            inputs = outputs
        self.bn = nn.BatchNorm2d(inputs) if last else None

    def forward(self, x: Tensor) -> Tensor:
        """Features (B, 512), the mean over the last stage's pixels."""
        x = self.conv1(x)
        for number in range(4):
            x = self.get_submodule(f"layer{number + 1}")(x)
        if self.bn is not None:
            x = F.relu(self.bn(x))
        return x.mean((2, 3))


def _padded(x: Tensor, stride: int) -> Tensor:
    """Zeros around ``x`` for a 3 x 3 convolution: of stride 2 below and to the right alone, as TensorFlow does."""
    return F.pad(x, (1, 1, 1, 1) if stride == 1 else (0, 1, 0, 1))


class SiluWideBlock(nn.Module):
    """A pre-activation block with SiLU, of Gowal et al.'s wide residual networks."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.batchnorm_0, self.conv_0 = nn.BatchNorm2d(inputs), _conv(inputs, width, 3, stride, padding=0)
        self.batchnorm_1, self.conv_1 = nn.BatchNorm2d(width), _conv(width, width)
        self.shortcut = _conv(inputs, width, 1, stride) if inputs != width else None
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, width, H / stride, W / stride)."""
        active = F.silu(self.batchnorm_0(x))
        out: Tensor = self.conv_1(F.silu(self.batchnorm_1(self.conv_0(_padded(active, self.stride)))))
        return out + (x if self.shortcut is None else self.shortcut(active))


class SiluWideResNet(nn.Module):
    """Gowal et al. (2020), "Uncovering the limits": a wide residual network with SiLU and TensorFlow's padding.

    Attributes:
        width: H, of the features.
    """

    def __init__(self, depth: int, widen: int) -> None:
        super().__init__()
        self.init_conv, inputs = _conv(3, 16), 16
        groups = []
        for number in range(3):
            outputs, blocks = 16 * widen * 2**number, []
            for place in range((depth - 4) // 6):
                blocks.append(SiluWideBlock(inputs, outputs, 2 if number and not place else 1))
                inputs = outputs
            group = nn.Module()
            group.block = nn.Sequential(*blocks)
            groups.append(group)
        self.layer = nn.ModuleList(groups)
        self.batchnorm, self.width = nn.BatchNorm2d(inputs), inputs

    def forward(self, x: Tensor) -> Tensor:
        """Features (B, H), the mean over the last group's pixels."""
        x = self.init_conv(x)
        for number in range(3):
            x = self.get_submodule(f"layer.{number}.block")(x)
        return F.silu(self.batchnorm(x)).mean((2, 3))


class SiluPreActBlock(nn.Module):
    """A pre-activation block with SiLU, whose shortcut is a 3 x 3 convolution of the raw input."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.batchnorm_0, self.conv_2d_1 = nn.BatchNorm2d(inputs), _conv(inputs, width, 3, stride, padding=0)
        self.batchnorm_1, self.conv_2d_2 = nn.BatchNorm2d(width), _conv(width, width)
        changed = stride > 1 or inputs != width
        self.shortcut = _conv(inputs, width, 3, stride, padding=0) if changed else None
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, width, H / stride, W / stride)."""
        out = self.conv_2d_1(_padded(F.silu(self.batchnorm_0(x)), self.stride))
        out = self.conv_2d_2(F.silu(self.batchnorm_1(out)))
        shortcut: Tensor = x if self.shortcut is None else self.shortcut(_padded(x, self.stride))
        return shortcut + out


class SiluPreActResNet(nn.Module):
    """PreActResNet-18 with SiLU and TensorFlow's padding, of the same authors' program.

    Attributes:
        width: H, of the features.
    """

    width = 512

    def __init__(self) -> None:
        super().__init__()
        self.conv_2d, inputs = _conv(3, 64), 64
        for number in range(4):
            outputs = 64 * 2**number
            first = SiluPreActBlock(inputs, outputs, 2 if number else 1)
            self.add_module(f"layer_{number}", nn.Sequential(first, SiluPreActBlock(outputs, outputs, 1)))
            inputs = outputs
        self.batchnorm = nn.BatchNorm2d(inputs)

    def forward(self, x: Tensor) -> Tensor:
        """Features (B, 512), the mean over the last stage's pixels."""
        x = self.conv_2d(x)
        for number in range(4):
            x = self.get_submodule(f"layer_{number}")(x)
        return F.silu(self.batchnorm(x)).mean((2, 3))

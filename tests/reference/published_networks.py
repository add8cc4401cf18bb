"""Published robust networks for CIFAR, as plain functions of a state dict in their own names; and random states.

Independent of `contraverse.models`: nothing here is a module, and names are written out as the published programs have
them. Gowal et al.'s convolutions of stride 2 are padded as TensorFlow does, below and to the right.
"""

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

State = dict[str, Tensor]
Shapes = dict[str, tuple[int, ...]]


def norm(name: str, width: int) -> Shapes:
    return {f"{name}.{part}": (width,) for part in ("weight", "bias", "running_mean", "running_var")}


def random_state(shapes: Shapes, seed: int = 0) -> State:
    """Values that keep activations near one, and statistics that are not the initial ones."""
    random, state = torch.Generator().manual_seed(seed), {}
    for name, shape in shapes.items():
        value = torch.randn(shape, generator=random)
        if len(shape) > 1:
            value = value * (2 / max(1, value[0].numel())) ** 0.5
        if name.endswith("running_var") or (len(shape) == 1 and name.endswith("weight")):
            value = 0.5 + value.abs()
        state[name] = value
    return state


def bn(state: State, name: str, x: Tensor) -> Tensor:
    mean, var, weight, bias = (state[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias"))
    return F.batch_norm(x, mean, var, weight, bias)


def strides(stages: int, blocks: int) -> Iterator[tuple[int, int, int]]:
    """Stage, block and stride."""
    for stage in range(stages):
        for block in range(blocks):
            yield stage, block, 2 if stage and not block else 1


def wide_shapes(depth: int, widen: int, classes: int, *, sub_block: bool = False) -> Shapes:
    """TRADES' wide residual network."""
    shapes: Shapes = {"conv1.weight": (16, 3, 3, 3)}
    inputs, blocks = 16, (depth - 4) // 6
    for stage, block, _ in strides(3, blocks):
        width, name = 16 * widen * 2**stage, f"block{stage + 1}.layer.{block}"
        added = norm(f"{name}.bn1", inputs) | {f"{name}.conv1.weight": (width, inputs, 3, 3)}
        added |= norm(f"{name}.bn2", width) | {f"{name}.conv2.weight": (width, width, 3, 3)}
        if inputs != width:
            added[f"{name}.convShortcut.weight"] = (width, inputs, 1, 1)
        shapes |= added
        if sub_block and not stage:
            shapes |= {key.replace("block1.", "sub_block1."): shape for key, shape in added.items()}
        inputs = width
    return shapes | norm("bn1", inputs) | {"fc.weight": (classes, inputs), "fc.bias": (classes,)}


def wide_logits(state: State, x: Tensor, depth: int) -> Tensor:
    x = F.conv2d(x, state["conv1.weight"], padding=1)
    for stage, block, stride in strides(3, (depth - 4) // 6):
        name = f"block{stage + 1}.layer.{block}"
        active = bn(state, f"{name}.bn1", x).relu()
        out = F.conv2d(active, state[f"{name}.conv1.weight"], stride=stride, padding=1)
        out = F.conv2d(bn(state, f"{name}.bn2", out).relu(), state[f"{name}.conv2.weight"], padding=1)
        if f"{name}.convShortcut.weight" in state:
            x = F.conv2d(active, state[f"{name}.convShortcut.weight"], stride=stride)
        x = x + out
    h = bn(state, "bn1", x).relu().mean((2, 3))
    return h @ state["fc.weight"].T + state["fc.bias"]


def silu_wide_shapes(depth: int, widen: int, classes: int) -> Shapes:
    """Gowal et al.'s wide residual network."""
    shapes: Shapes = {"mean": (3, 1, 1), "std": (3, 1, 1), "init_conv.weight": (16, 3, 3, 3)}
    inputs = 16
    for stage, block, _ in strides(3, (depth - 4) // 6):
        width, name = 16 * widen * 2**stage, f"layer.{stage}.block.{block}"
        shapes |= norm(f"{name}.batchnorm_0", inputs) | {f"{name}.conv_0.weight": (width, inputs, 3, 3)}
        shapes |= norm(f"{name}.batchnorm_1", width) | {f"{name}.conv_1.weight": (width, width, 3, 3)}
        if inputs != width:
            shapes[f"{name}.shortcut.weight"] = (width, inputs, 1, 1)
        inputs = width
    return shapes | norm("batchnorm", inputs) | {"logits.weight": (classes, inputs), "logits.bias": (classes,)}


def same(x: Tensor, weight: Tensor, stride: int) -> Tensor:
    """A 3 x 3 convolution padded as TensorFlow's SAME."""
    return F.conv2d(F.pad(x, (0, 1, 0, 1)) if stride == 2 else F.pad(x, (1, 1, 1, 1)), weight, stride=stride)


def silu(x: Tensor) -> Tensor:
    return x / (1 + torch.exp(-x))


def silu_wide_logits(state: State, x: Tensor, depth: int) -> Tensor:
    x = F.conv2d((x - state["mean"]) / state["std"], state["init_conv.weight"], padding=1)
    for stage, block, stride in strides(3, (depth - 4) // 6):
        name = f"layer.{stage}.block.{block}"
        active = silu(bn(state, f"{name}.batchnorm_0", x))
        out = silu(bn(state, f"{name}.batchnorm_1", same(active, state[f"{name}.conv_0.weight"], stride)))
        out = F.conv2d(out, state[f"{name}.conv_1.weight"], padding=1)
        if f"{name}.shortcut.weight" in state:
            x = F.conv2d(active, state[f"{name}.shortcut.weight"], stride=stride)
        x = x + out
    h = silu(bn(state, "batchnorm", x)).mean((2, 3))
    return h @ state["logits.weight"].T + state["logits.bias"]


def preact_shapes(classes: int, *, last: bool) -> Shapes:
    """PreActResNet-18."""
    shapes: Shapes = {"conv1.weight": (64, 3, 3, 3)}
    inputs = 64
    for stage, block, stride in strides(4, 2):
        width, name = 64 * 2**stage, f"layer{stage + 1}.{block}"
        shapes |= norm(f"{name}.bn1", inputs) | {f"{name}.conv1.weight": (width, inputs, 3, 3)}
        shapes |= norm(f"{name}.bn2", width) | {f"{name}.conv2.weight": (width, width, 3, 3)}
        if stride == 2:
            shapes[f"{name}.shortcut.0.weight"] = (width, inputs, 1, 1)
        inputs = width
    shapes |= norm("bn", inputs) if last else {}
    return shapes | {"linear.weight": (classes, inputs), "linear.bias": (classes,)}


def preact_logits(state: State, x: Tensor, *, raw: bool) -> Tensor:
    x = F.conv2d(x, state["conv1.weight"], padding=1)
    for stage, block, stride in strides(4, 2):
        name = f"layer{stage + 1}.{block}"
        active = bn(state, f"{name}.bn1", x).relu()
        out = F.conv2d(active, state[f"{name}.conv1.weight"], stride=stride, padding=1)
        out = F.conv2d(bn(state, f"{name}.bn2", out).relu(), state[f"{name}.conv2.weight"], padding=1)
        if stride == 2:
            x = F.conv2d(x if raw else active, state[f"{name}.shortcut.0.weight"], stride=2)
        x = x + out
    if "bn.weight" in state:
        x = bn(state, "bn", x).relu()
    return x.mean((2, 3)) @ state["linear.weight"].T + state["linear.bias"]


def silu_preact_shapes(classes: int) -> Shapes:
    """PreActResNet-18 of Gowal et al.'s program."""
    shapes: Shapes = {"mean": (3, 1, 1), "std": (3, 1, 1), "conv_2d.weight": (64, 3, 3, 3)}
    inputs = 64
    for stage, block, stride in strides(4, 2):
        width, name = 64 * 2**stage, f"layer_{stage}.{block}"
        shapes |= norm(f"{name}.batchnorm_0", inputs) | {f"{name}.conv_2d_1.weight": (width, inputs, 3, 3)}
        shapes |= norm(f"{name}.batchnorm_1", width) | {f"{name}.conv_2d_2.weight": (width, width, 3, 3)}
        if stride == 2:
            shapes[f"{name}.shortcut.weight"] = (width, inputs, 3, 3)
        inputs = width
    return shapes | norm("batchnorm", inputs) | {"logits.weight": (classes, inputs), "logits.bias": (classes,)}


def silu_preact_logits(state: State, x: Tensor) -> Tensor:
    x = F.conv2d((x - state["mean"]) / state["std"], state["conv_2d.weight"], padding=1)
    for stage, block, stride in strides(4, 2):
        name = f"layer_{stage}.{block}"
        out = same(silu(bn(state, f"{name}.batchnorm_0", x)), state[f"{name}.conv_2d_1.weight"], stride)
        out = F.conv2d(silu(bn(state, f"{name}.batchnorm_1", out)), state[f"{name}.conv_2d_2.weight"], padding=1)
        if stride == 2:
            x = same(x, state[f"{name}.shortcut.weight"], 2)
        x = x + out
    h = silu(bn(state, "batchnorm", x)).mean((2, 3))
    return h @ state["logits.weight"].T + state["logits.bias"]


def shapes_of(state: dict[str, Any]) -> Shapes:
    """Shapes by name, without the counters of batch norms."""
    return {name: tuple(value.shape) for name, value in state.items() if not name.endswith("num_batches_tracked")}

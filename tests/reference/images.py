"""Small batches of pixels, and residual networks written out from their weights alone."""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from contraverse.models.image import ImageModel

SHARED = Path(__file__).resolve().parents[2] / ".." / "shared" / "data"
CIFAR10 = SHARED / "images" / "cifar10" / "cifar10_20k_10k.parquet"
CLASSES = ("cat", "dog", "ship")
MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)


def image_batch(rows: int = 4, size: int = 8, seed: int = 0) -> dict[str, Any]:
    """Random pixels; those of the first row are all 0 or 1, where a perturbation can only go one way."""
    random = torch.Generator().manual_seed(seed)
    pixels = torch.rand(rows, 3, size, size, generator=random)
    pixels[0] = pixels[0].round()
    labels = torch.arange(rows) % len(CLASSES)
    return {"pixel_values": pixels, "labels": labels, "index": torch.arange(rows)}


def shaken(module: Any, seed: int = 1) -> Any:
    """Weights and running statistics as after training: those of the two sets of a dual batch norm differ."""
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
            if tensor.is_floating_point() and name.rpartition(".")[2] not in ("_mean", "_std"):
                noise = torch.randn(tensor.shape, generator=random)
                tensor.copy_(tensor * (0.3 * noise).exp() if "var" in name else tensor + 0.1 * noise)
    return module


def tiny(labels: tuple[str, ...] | None = CLASSES, *, dual: bool = False, heads: Any = None) -> ImageModel:
    """A shaken resnet8 in eval mode, the same each time, with a normalisation of its own."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = ImageModel.from_pretrained("resnet8", labels=labels, dual=dual, mean=MEAN, std=STD)
        model.add_heads(heads or {})
    return shaken(model).eval()


def buffers(module: nn.Module) -> dict[str, Tensor]:
    """Copies of all buffers, statistics of batch norms among them."""
    return {name: value.clone() for name, value in module.named_buffers()}


def features(
    state: Mapping[str, Tensor],
    x: Tensor,
    *,
    bn: str = "{}",
    shortcut: tuple[str, str] = ("downsample.0", "downsample.1"),
) -> Tensor:
    """Features (B, H) of a ResNet in eval mode for normalised pixels, from its weights by name.

    ``bn``: how the name of a batch norm is spelt out; ``shortcut``: what its convolution and its batch norm are called.
    """

    def conv(name: str, x: Tensor, stride: int = 1) -> Tensor:
        weight = state[f"{name}.weight"]
        return F.conv2d(x, weight, stride=stride, padding=weight.shape[-1] // 2)

    def norm(name: str, x: Tensor) -> Tensor:
        mean, var, weight, bias = (
            state[f"{bn.format(name)}.{part}"].reshape(-1, 1, 1)
            for part in ("running_mean", "running_var", "weight", "bias")
        )
        return (x - mean) / (var + 1e-5).sqrt() * weight + bias

    x = norm("bn1", conv("conv1", x)).relu()
    for stage in range(1, 5):
        for block in range(9):
            name = f"layer{stage}.{block}"
            if f"{name}.conv1.weight" not in state:
                break
            stride = 2 if stage > 1 and block == 0 else 1
            narrow = f"{name}.conv3.weight" not in state
            out = norm(f"{name}.bn1", conv(f"{name}.conv1", x, stride if narrow else 1)).relu()
            out = norm(f"{name}.bn2", conv(f"{name}.conv2", out, 1 if narrow else stride))
            if not narrow:
                out = norm(f"{name}.bn3", conv(f"{name}.conv3", out.relu()))
            if f"{name}.{shortcut[0]}.weight" in state:
                x = norm(f"{name}.{shortcut[1]}", conv(f"{name}.{shortcut[0]}", x, stride))
            elif x.shape != out.shape:
                wide = torch.zeros_like(out)
                first = (out.shape[1] - x.shape[1]) // 2
                wide[:, first : first + x.shape[1]] = x[:, :, ::stride, ::stride]
                x = wide
            x = (out + x).relu()
    return x.flatten(2).mean(2)


def cifar10_test(count: int) -> tuple[Tensor, Tensor]:
    """The first images of CIFAR-10's test part, as pixels in [0, 1], and their labels."""
    import numpy as np
    import pyarrow.parquet as pq
    from PIL import Image

    table = pq.read_table(CIFAR10, filters=[("split", "=", "test")]).slice(0, count)
    images = [np.asarray(Image.open(io.BytesIO(image))) for image in table["image"].to_pylist()]
    pixels = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 255
    return pixels, torch.tensor(table["label"].to_pylist())

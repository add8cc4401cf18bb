"""An image classifier as one ordinary module, which knows nothing of contraverse's types."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class PlainImageModel(nn.Module):
    """Normalisation, backbone and classifier as one ordinary module: see `ImageModel.plain`."""

    mean: Tensor
    std: Tensor

    def __init__(
        self, encoder: nn.Module, classifier: nn.Module | None, mean: Sequence[float], std: Sequence[float]
    ) -> None:
        super().__init__()
        self.encoder, self.classifier = encoder, classifier
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).reshape(-1, 1, 1))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).reshape(-1, 1, 1))

    def forward(self, pixels: Tensor) -> Tensor:
        """Pixels (B, C, H, W) in [0, 1] -> logits (B, classes), or features (B, width)."""
        features: Tensor = self.encoder(normalised(pixels, self.mean, self.std))
        return features if self.classifier is None else self.classifier(features)


def normalised(pixels: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """``(pixels - mean) / std``, channels last, which convolutions run faster on."""
    return ((pixels - mean) / std).contiguous(memory_format=torch.channels_last)

"""A network of one's own, from pixels in [0, 1] to logits, as a model that can be attacked and measured."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from contraverse.errors import UserError
from contraverse.models.image import ImageModel

SIZES = (32, 28, 224, 64, 96)
"""Heights and widths of the grey image by which a network says how many classes it tells apart; the first it takes."""


class _Contiguous(nn.Module):
    """The network on tensors in torch's default layout, which ``view`` needs."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixels: Tensor) -> Tensor:
        logits: Tensor = self.network(pixels.contiguous())
        return logits


def around(network: nn.Module, labels: Sequence[str] | None = None) -> ImageModel:
    """``network`` as an `ImageModel` without a normalisation, in eval mode; its weights are not copied.

    Args:
        network: pixels (B, 3, H, W) in [0, 1] -> logits (B, C); whatever normalisation it needs is its own.
        labels: class names in the order of the logits; None numbers them, as many as the network gives logits for a
            grey image.

    Raises:
        UserError: it gives no logits of the shape (B, C) for an image of any of `SIZES`.
    """
    network.eval()
    labels = list(labels) if labels is not None else [str(i) for i in range(_classes(network))]
    model = ImageModel(_Contiguous(network), len(labels), labels=labels, mean=(0.0,) * 3, std=(1.0,) * 3)
    model.classifier = nn.Identity()  # type: ignore[assignment]
    for parameter in network.parameters():
        parameter.data = parameter.data.contiguous()
    return model.eval()


@torch.no_grad()
def _classes(network: nn.Module) -> int:
    device = next((parameter.device for parameter in network.parameters()), torch.device("cpu"))
    reasons = []
    for size in SIZES:
        try:
            logits = network(torch.full((1, 3, size, size), 0.5, device=device))
        except Exception as error:  # whatever another's forward pass raises
            reasons.append(f"{size} x {size}: {type(error).__name__}: {str(error).splitlines()[:1]}")
            continue
        if isinstance(logits, Tensor) and logits.dim() == 2 and len(logits) == 1:
            return logits.shape[1]
        shape = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        reasons.append(f"{size} x {size}: gives {shape}, not (1, classes)")
    raise UserError(
        "the network gives no logits for an image of any usual size:\n  " + "\n  ".join(reasons),
        hint="Wanted: pixels (B, 3, H, W) in [0, 1] -> logits (B, classes).",
    )

"""A linear classifier of small images, whose robustness can be computed, and images for it."""

import torch
from torch import Tensor, nn

from contraverse.data.images import ImageData

SIZE = 8
PIXELS = 3 * SIZE * SIZE


class LinearImages(nn.Module):
    """Logits (B, classes) of a linear map of all pixels, after a batch norm that evaluation must not touch."""

    def __init__(self, classes: int = 5, seed: int = 0) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(3, affine=False, eps=0.0)
        self.map = nn.Linear(PIXELS, classes, bias=False)
        random = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            self.map.weight.copy_(torch.randn(classes, PIXELS, generator=random) / PIXELS)

    def forward(self, pixels: Tensor) -> Tensor:
        logits: Tensor = self.map(self.norm(pixels).flatten(1))
        return logits


def grey_images(model: LinearImages, rows: int = 24, seed: int = 1) -> ImageData:
    """Images far from black and white, labelled as ``model`` does but for one row in eight."""
    random = torch.Generator().manual_seed(seed)
    pixels = torch.randint(90, 165, (rows, 3, SIZE, SIZE), generator=random, dtype=torch.uint8)
    with torch.no_grad():
        labels = model.eval()(pixels.float() / 255).argmax(1)
    model.train()
    classes = model.map.out_features
    labels[::8] = (labels[::8] + 1) % classes
    return ImageData.from_arrays(pixels.numpy(), labels.numpy(), [str(i) for i in range(classes)])


def radii(model: LinearImages, data: ImageData, norm: str) -> Tensor:
    """(N,): below this radius no perturbation breaks the row, above it one does; the ball lies inside [0, 1].

    The logit of y stays above that of j while ``(w_y - w_j) x > epsilon ||w_y - w_j||_*`` with the dual norm; the row
    that is wrong already has a radius of 0 or less.
    """
    weight, labels = model.map.weight.detach().double(), data.labels
    assert labels is not None
    logits = (data.pixels.double() / 255).flatten(1) @ weight.T
    dual = {"linf": 1.0, "l2": 2.0, "l1": float("inf")}[norm]
    found = torch.full((len(data),), float("inf"), dtype=torch.float64)
    for i, y in enumerate(labels.tolist()):
        for j in range(len(weight)):
            if j != y:
                radius = (logits[i, y] - logits[i, j]) / (weight[y] - weight[j]).norm(p=dual)
                found[i] = torch.minimum(found[i], radius)
    return found


def middle(model: LinearImages, data: ImageData, norm: str) -> float:
    """A radius that breaks about half of the rows, well away from the radius of any."""
    ascending = radii(model, data, norm).sort().values
    gaps = ascending[1:] - ascending[:-1]
    half, near = len(gaps) // 2, max(1, len(gaps) // 8)
    widest = half - near + int(gaps[half - near : half + near + 1].argmax())
    return float((ascending[widest] + ascending[widest + 1]) / 2)

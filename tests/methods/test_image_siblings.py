"""Every method that reads images, on what few test: a batch of a single row, and encoders without batch norm."""

from typing import Any

import pytest
import torch
from reference.driving import CASES, losses_of, make, ready
from reference.images import CLASSES, image_batch, tiny
from torch import Tensor, nn

from contraverse.methods import METHODS
from contraverse.models import ImageModel


def reads_images(case: str) -> bool:
    """True where a model of images can be trained so: with no pairs that the data holds, and no head over tokens."""
    name, settings = CASES[case]
    kinds = {spec.kind for spec in METHODS[name](**settings).heads.values()}
    return (
        METHODS[name].modality != "text"
        and METHODS[name].requires != "pairs"
        and kinds <= {"projection", "mlp", "patches"}
    )


each = pytest.mark.parametrize("case", [case for case in CASES if reads_images(case)])


class Patchwise(nn.Module):
    """A small vision transformer: patches of 4 x 4, layer norm, attention, and the mean over patches."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, 4, 4)
        self.layer = nn.TransformerEncoderLayer(width, 2, 2 * width, 0.0, batch_first=True, norm_first=True)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, width)."""
        h: Tensor = self.layer(self.patches(x).flatten(2).mT)
        return h.mean(1)


class Depthwise(nn.Module):
    """A block of ConvNeXt's kind: a stem, a depthwise convolution, and group norm in the place of batch norm."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, width, 2, 2), nn.GroupNorm(1, width)
        self.mix, self.up = nn.Conv2d(width, width, 3, padding=1, groups=width), nn.Conv2d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, width)."""
        x = self.stem(x)
        return (x + self.up(self.norm(self.mix(x)).relu())).mean((2, 3))


def batch_of(rows: int) -> dict[str, Any]:
    batch, size = image_batch(rows, 16), 16
    pair = {"pixel_values": image_batch(rows, size, seed=7)["pixel_values"]}
    return {**batch, "positive": pair, "negative": pair}


def steps(case: str, model: ImageModel, rows: int) -> None:
    """One step; every loss is finite, and something of the model gets a gradient that is."""
    method = make(case, hidden_size=model.width)
    model.add_heads(method.heads)
    ready(method, model.train())
    losses = losses_of(method, model, batch_of(rows))
    assert all(loss.total.isfinite() for loss in losses)
    grads = [p.grad for p in model.parameters() if p.grad is not None]
    assert grads
    assert all(grad.isfinite().all() for grad in grads)
    method.after_step(model)


@each
@pytest.mark.parametrize("dual", [False, True])
def test_a_batch_of_a_single_row(case: str, dual: bool) -> None:
    torch.manual_seed(0)
    steps(case, tiny(CLASSES, dual=dual), 1)


@each
@pytest.mark.parametrize("encoder", [Patchwise, Depthwise])
@pytest.mark.parametrize("rows", [1, 4])
def test_an_encoder_without_batch_norm(case: str, encoder: type[nn.Module], rows: int) -> None:
    torch.manual_seed(0)
    steps(case, ImageModel(encoder(), 16, labels=CLASSES), rows)


@each
def test_only_passes_that_are_trained_on_move_running_statistics(case: str) -> None:
    """The search of a perturbation leaves no trace in batch norm; of SMART, ALUM and VAT the clean pass alone does."""
    method = make(case, hidden_size=64)
    model = tiny(heads=method.heads).train()
    ready(method, model)
    norm = next(module for module in model.modules() if isinstance(module, nn.BatchNorm2d))
    moved, trained, training = [], set[int](), False

    def forward(module: nn.Module, arguments: Any, out: Tensor) -> None:
        number = len(moved)
        moved.append(norm.training and norm.track_running_stats)
        if out.requires_grad:
            out.register_hook(lambda grad: trained.add(number) if training else None)

    norm.register_forward_hook(forward)
    for loss in method.losses(model, batch_of(4)):
        training = True
        loss.total.backward()
        training = False
    assert {number for number, moves in enumerate(moved) if moves} <= trained
    if method.name in ("smart", "alum", "vat"):
        assert sum(moved) == 1

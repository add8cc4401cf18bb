"""A model that has diverged is not saved, and gives no embeddings."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from contraverse.data import ImageData
from contraverse.errors import UserError
from contraverse.evaluation.images.probing import features
from contraverse.models import ImageModel, TextModel


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_text_model(value: float, tiny_model: Callable[..., TextModel], tmp_path: Path) -> None:
    """F7."""
    model = tiny_model(labels=None, pooling="mean")
    kept = model.save(tmp_path / "model")
    with torch.no_grad():
        next(model.parameters()).view(-1)[0] = value  # of [PAD], which no sentence shows
    with pytest.raises(UserError, match="the weights are not finite, first "):
        model.save(tmp_path / "model")
    with torch.no_grad():
        next(model.parameters()).fill_(value)
    assert TextModel.load(kept).encode(["good work"]).shape == (1, 32)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    with pytest.raises(UserError, match="2 of 2 vectors hold NaN or infinity, first that of row 0"):
        model.encode(["good work", "no good"])


def test_a_model_of_images(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = ImageModel.from_pretrained("resnet8", labels=None)
    with torch.no_grad():
        next(p for name, p in model.named_parameters() if p.dim() == 4).fill_(torch.nan)
    with pytest.raises(UserError, match="the weights are not finite"):
        model.save(tmp_path / "model")
    assert list(tmp_path.iterdir()) == []
    images = ImageData.from_arrays(torch.randint(0, 255, (3, 3, 8, 8), dtype=torch.uint8))
    with pytest.raises(UserError, match="3 of 3 vectors"):
        features(model, images, "clean")

"""Writing an `ImageModel` and reading it back."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from contraverse.errors import UserError
from contraverse.models.backbones import build_backbone
from contraverse.models.detector import Detector, class_id
from contraverse.models.finite import refuse_not_finite
from contraverse.models.folders import SETTINGS, read_settings, replace_folder, write_tensors
from contraverse.models.loading import damaged, read_object
from contraverse.types import HeadSpec

if TYPE_CHECKING:
    from contraverse.models.image import ImageModel

KIND, WEIGHTS = "image", "model.safetensors"


class Stored(BaseModel):
    """Settings of an `ImageModel` beside its weights: what ``contraverse.json`` holds."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["image"]
    backbone: str | None
    width: int = Field(ge=1)
    labels: list[str] | None
    dual: bool = False
    mean: list[float]
    std: list[float]
    image_size: list[int] | None = None
    timm: dict[str, Any] = {}
    heads: dict[str, HeadSpec] = {}
    detector: Detector | None = None


def save(model: "ImageModel", folder: Path) -> Path:
    """See `ImageModel.save`."""
    refuse_not_finite(model, folder)
    settings = {
        "kind": KIND,
        "backbone": model.backbone,
        "width": model.width,
        "labels": model.labels,
        "dual": model.dual,
        "mean": model.mean,
        "std": model.std,
        "image_size": model.image_size,
        "timm": model.timm,
        "heads": {name: asdict(spec) for name, spec in model.head_specs.items()},
    }
    if model.detector is not None:
        settings["detector"] = model.detector.model_dump()
    return replace_folder(folder, settings, lambda new: write_tensors(model.state_dict(), new / WEIGHTS))


def is_image_model(folder: Path) -> bool:
    """True where `ImageModel.save` wrote ``folder``."""
    if not (folder / SETTINGS).is_file():
        return False
    return read_object(folder / SETTINGS).get("kind") == KIND


def saved_size(folder: Path) -> tuple[int, int] | None:
    """Height and width of the images that the model in ``folder`` is for; None where they are not known."""
    height_width = read_settings(folder, Stored).image_size
    return (height_width[0], height_width[1]) if height_width else None


def load(folder: Path, cls: "type[ImageModel]", encoder: nn.Module | None) -> "ImageModel":
    """See `ImageModel.load`."""
    if not is_image_model(folder):
        raise UserError(
            f"no model of images here (its folder holds {SETTINGS})",
            where=str(folder),
            hint="give the model/ folder of a finished run",
        )
    stored = read_settings(folder, Stored)
    if encoder is None:
        if stored.backbone is None:
            hint = "build one like it: ImageModel.load(folder, encoder=module)"
            raise UserError("this model was made from a user's own module", where=str(folder), hint=hint)
        encoder = build_backbone(stored.backbone, pretrained=False, timm=stored.timm)[0]
    with damaged(folder / SETTINGS):
        model = cls(encoder, **stored.model_dump(exclude={"kind", "heads", "detector"}))
        model.add_heads(stored.heads)
    try:
        model.load_state_dict(load_file(folder / WEIGHTS))
    except (RuntimeError, SafetensorError, OSError) as error:
        raise UserError(f"the weights do not fit the model: {error}", where=str(folder / WEIGHTS)) from error
    if stored.detector is not None:
        class_id(stored.detector.positive, stored.labels, where=str(folder / SETTINGS))
        model.detector = stored.detector
    return model.eval()

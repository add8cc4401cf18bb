"""Writing an `ImageModel` and reading it back."""

import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from contraverse.errors import UserError
from contraverse.models.backbones import build_backbone
from contraverse.types import HeadSpec

if TYPE_CHECKING:
    from contraverse.models.image import ImageModel

KIND, SETTINGS, WEIGHTS = "image", "contraverse.json", "model.safetensors"


def save(model: "ImageModel", folder: Path) -> Path:
    """See `ImageModel.save`."""
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir()) and not (folder / SETTINGS).is_file()):
        raise UserError("holds something that is no model, which saving would replace", where=str(folder))
    settings = {
        "kind": KIND,
        "backbone": model.backbone,
        "width": model.width,
        "labels": model.labels,
        "dual": model.dual,
        "mean": model.mean,
        "std": model.std,
        "image_size": model.image_size,
        "heads": {name: asdict(spec) for name, spec in model.head_specs.items()},
    }
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    # Copies, since safetensors takes no weights that two names share.
    state = {name: value.clone() for name, value in model.state_dict().items()}
    save_file(state, partial / WEIGHTS)
    (partial / SETTINGS).write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)
    return folder


def is_image_model(folder: Path) -> bool:
    """Whether ``folder`` holds what `ImageModel.save` wrote."""
    if not (folder / SETTINGS).is_file():
        return False
    return json.loads((folder / SETTINGS).read_text(encoding="utf-8")).get("kind") == KIND


def saved_size(folder: Path) -> tuple[int, int] | None:
    """Height and width of the images that the model in ``folder`` is for; None where they are not known."""
    height_width = json.loads((folder / SETTINGS).read_text(encoding="utf-8")).get("image_size")
    return tuple(height_width) if height_width else None


def load(folder: Path, cls: "type[ImageModel]", encoder: nn.Module | None) -> "ImageModel":
    """See `ImageModel.load`."""
    if not is_image_model(folder):
        raise UserError(
            f"no model of images here (its folder holds {SETTINGS})",
            where=str(folder),
            hint="give the model/ folder of a finished run",
        )
    settings = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
    del settings["kind"]
    heads = {name: HeadSpec(**spec) for name, spec in settings.pop("heads").items()}
    if encoder is None:
        if settings["backbone"] is None:
            hint = "build one like it: ImageModel.load(folder, encoder=module)"
            raise UserError("this model was made around a module of one's own", where=str(folder), hint=hint)
        encoder = build_backbone(settings["backbone"], pretrained=False)[0]
    model = cls(encoder, **settings)
    model.add_heads(heads)
    try:
        model.load_state_dict(load_file(folder / WEIGHTS))
    except (RuntimeError, SafetensorError, OSError) as error:
        raise UserError(f"the weights do not fit the model: {error}", where=str(folder / WEIGHTS)) from error
    return model.eval()

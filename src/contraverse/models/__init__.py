"""Encoders with their heads, and what is done to their embeddings afterwards."""

from pathlib import Path

from contraverse.models.flow import Flow, fit_flow
from contraverse.models.image import ImageModel
from contraverse.models.image_storage import is_image_model
from contraverse.models.modes import attacking, evaluating
from contraverse.models.own import around
from contraverse.models.text import TextModel
from contraverse.models.whitening import Whitening, fit_whitening

AnyModel = TextModel | ImageModel


def load_model(folder: str | Path) -> AnyModel:
    """Read what ``save`` of either wrote, in eval mode.

    Raises:
        UserError: no model is there.
    """
    return ImageModel.load(folder) if is_image_model(Path(folder)) else TextModel.load(folder)


__all__ = [
    "AnyModel",
    "Flow",
    "ImageModel",
    "TextModel",
    "Whitening",
    "around",
    "attacking",
    "evaluating",
    "fit_flow",
    "fit_whitening",
    "is_image_model",
    "load_model",
]

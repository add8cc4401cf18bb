"""Encoders with their heads, and postprocessing of their embeddings."""

from pathlib import Path

from contraverse.models.flow import Flow, fit_flow
from contraverse.models.image import ImageModel
from contraverse.models.image_storage import is_image_model
from contraverse.models.modes import attacking, evaluating
from contraverse.models.text import TextModel
from contraverse.models.whitening import Whitening, fit_whitening

AnyModel = TextModel | ImageModel


def load_model(folder: str | Path, *, trust_remote_code: bool = False) -> AnyModel:
    """Read what ``save`` of either wrote, in eval mode; ``trust_remote_code`` lets a model of texts run its own code.

    Raises:
        UserError: no model is there, or it is damaged.
    """
    if is_image_model(Path(folder)):
        return ImageModel.load(folder)
    return TextModel.load(folder, trust_remote_code=trust_remote_code)


__all__ = [
    "AnyModel",
    "Flow",
    "ImageModel",
    "TextModel",
    "Whitening",
    "attacking",
    "evaluating",
    "fit_flow",
    "fit_whitening",
    "is_image_model",
    "load_model",
]

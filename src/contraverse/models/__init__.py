"""Encoders with their heads, and what is done to their embeddings afterwards."""

from contraverse.models.flow import Flow, fit_flow
from contraverse.models.image import ImageModel
from contraverse.models.modes import evaluating
from contraverse.models.text import TextModel
from contraverse.models.whitening import Whitening, fit_whitening

AnyModel = TextModel | ImageModel

__all__ = ["AnyModel", "Flow", "ImageModel", "TextModel", "Whitening", "evaluating", "fit_flow", "fit_whitening"]

"""Encoders with their heads."""

from contraverse.models.modes import evaluating
from contraverse.models.text import TextModel

__all__ = ["TextModel", "evaluating"]

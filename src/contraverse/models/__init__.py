"""Encoders with their heads."""

from contraverse.models.text import TextModel

__all__ = ["TextModel"]

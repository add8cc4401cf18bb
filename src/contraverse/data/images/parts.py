"""Images as a source gives them: decoded arrays or encoded files, before anything is known about their classes."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

SHOWN = 10
"""How many files, rows or names a message lists before it counts."""


@dataclass(frozen=True)
class Part:
    """Images of one file or folder, all of one split.

    ``where`` names it in messages. ``images``: an array that `to_bytes` takes, or for each image its file or its
    encoded bytes (None where they are missing). ``labels``: class names or numbers as they came, None without labels.
    ``places``: what each image is called in messages, None for "image 0", "image 1", ... ``classes``: the names that
    the source itself declares for numbers. ``faults``: what was to be an image and cannot be one, and why.
    """

    where: str
    images: np.ndarray | Sequence[Path | bytes | None]
    labels: Sequence[Any] | None
    places: Sequence[str] | None = None
    classes: tuple[str, ...] | None = None
    faults: list[str] = field(default_factory=list)

    def place(self, i: int) -> str:
        """What image ``i`` is called."""
        return f"{self.where}, image {i}" if self.places is None else self.places[i]


def spelled(path: Path | str) -> str:
    """``path`` as text that can be written anywhere: bytes that are not UTF-8 as escapes."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def listed(names: Sequence[str], separator: str = ", ") -> str:
    """The first few of ``names``, and how many more there are."""
    more = f"{separator}and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return separator.join(names[:SHOWN]) + more

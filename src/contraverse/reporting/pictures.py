"""Images under attack, as a report shows them."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

SMALLEST = 64
"""Pixels that the side of a picture has at least, so that a browser does not blur small ones."""


@dataclass(frozen=True)
class AttackedPicture:
    """Predictions of one run for an image, by name, without and with the attack, and the attacked image.

    ``image`` and ``perturbation``: data URIs; the latter is stretched around grey so that it can be seen.
    """

    run: str
    clean: str
    attacked: str
    image: str
    perturbation: str


@dataclass(frozen=True)
class Picture:
    """An image, its label, and what each run made of it."""

    label: str
    image: str
    views: Sequence[AttackedPicture]


def data_uri(pixels: np.ndarray) -> str:
    """(3, H, W) floats in [0, 1] as a PNG inside an address, every pixel drawn as a square where they are few."""
    bytes_ = (np.clip(pixels, 0, 1).transpose(1, 2, 0) * 255).round().astype(np.uint8)
    times = -(-SMALLEST // min(bytes_.shape[:2]))
    image = Image.fromarray(bytes_.repeat(times, 0).repeat(times, 1))
    file = io.BytesIO()
    image.save(file, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def stretched(delta: np.ndarray, epsilon: float) -> np.ndarray:
    """A perturbation (3, H, W) as an image: grey where there is none, black and white at ``epsilon``."""
    return np.asarray(0.5 + delta / (2 * epsilon))

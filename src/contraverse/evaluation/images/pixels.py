"""Shared by all evaluations on images: an ordinary module from pixels to logits, and labelled rows."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from contraverse.data.images import ImageData
from contraverse.errors import UserError
from contraverse.evaluation.attack_loop import frozen, seeded
from contraverse.evaluation.predict import Progress
from contraverse.models import attacking
from contraverse.models.image import ImageModel
from contraverse.types import BNBranch


@contextmanager
def as_classifier(model: nn.Module, bn_branch: BNBranch, seed: int = 0) -> Iterator[nn.Module]:
    """``model`` as an ordinary module, in eval mode and frozen inside; modes, flags and random state are put back.

    Args:
        model: an `ImageModel`, of which a copy with one set of batch norms is made; or any module that takes pixels in
            [0, 1] (B, C, H, W) and gives logits (B, classes).
        bn_branch: which set of a dual model's batch norms.
        seed: the random state inside.

    Raises:
        UserError: an encoder without a classifier.
    """
    if isinstance(model, ImageModel):
        if model.classifier is None:
            raise UserError("the model has no classifier", hint="train one first, or load it with labels=[...]")
        model = model.plain(bn_branch)
    with attacking(model), frozen(model), seeded(seed):
        yield model


def labels_of(data: ImageData) -> Tensor:
    """Class ids (N,).

    Raises:
        UserError: no labels, or no images.
    """
    if not len(data):
        raise UserError("there are no images", where=data.source)
    if data.labels is None:
        raise UserError("accuracy needs labels, and these images have none", where=data.source)
    return data.labels


def device_of(model: nn.Module) -> torch.device:
    """Where the weights are; the CPU without any."""
    return next((parameter.device for parameter in model.parameters()), torch.device("cpu"))


def as_floats(pixels: Tensor, device: torch.device) -> Tensor:
    """Bytes as values in [0, 1], on ``device``."""
    return pixels.to(device).float() / 255


@torch.no_grad()
def classes_of(classifier: nn.Module, data: ImageData, device: torch.device) -> int:
    """Number of classes of ``classifier``.

    Raises:
        UserError: it gives no logits (B, classes), or ``data`` has a label that is none of its classes.
    """
    return _checked(classifier(as_floats(data.pixels[:1], device)), labels_of(data)).shape[1]


def _checked(logits: Any, labels: Tensor) -> Tensor:
    """``logits`` (B, C) of a classifier that can tell ``labels`` (N,) apart."""
    if not isinstance(logits, Tensor) or logits.dim() != 2:
        gives = f"a tensor of shape {tuple(logits.shape)}" if isinstance(logits, Tensor) else type(logits).__name__
        raise UserError(f"a classifier gives logits (images, classes), and this one gives {gives}")
    largest, classes = int(labels.max()), logits.shape[1]
    if largest >= classes:
        raise UserError(f"the model has {classes} classes, and an image has the label {largest}")
    return logits


@torch.no_grad()
def right(
    classifier: nn.Module, pixels: Tensor, labels: Tensor, batch_size: int, progress: Progress | None = None
) -> np.ndarray:
    """Mask (N,) of the images (N, C, H, W), in bytes, that are classified as their ``labels`` (N,).

    Raises:
        UserError: as `classes_of`.
    """
    device, correct = device_of(classifier), []
    for rows, classes in zip(pixels.split(batch_size), labels.split(batch_size), strict=True):
        logits = _checked(classifier(as_floats(rows, device)), labels)
        correct.append((logits.argmax(1).cpu() == classes).numpy())
        if progress:
            progress(len(rows))
    return np.concatenate(correct)

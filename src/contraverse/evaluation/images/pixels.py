"""Shared by all evaluations on images: an ordinary module from pixels to logits, and labelled rows."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from contraverse.data.images import ImageData
from contraverse.data.images.lazy import LazyPixels
from contraverse.errors import UserError
from contraverse.evaluation.attack_loop import frozen, seeded
from contraverse.evaluation.predict import Progress
from contraverse.functional import all_parts, my_share
from contraverse.models import attacking
from contraverse.models.image import ImageModel
from contraverse.types import BNBranch

T = TypeVar("T")


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
    classifier: nn.Module,
    pixels: Tensor | LazyPixels,
    labels: Tensor,
    batch_size: int,
    progress: Progress | None = None,
) -> np.ndarray:
    """Mask (N,) of the images (N, C, H, W), in bytes, that are classified as their ``labels`` (N,).

    Inside `contraverse.functional.sharing` each process classifies its share of the batches.

    Raises:
        UserError: as `classes_of`.
    """
    device = device_of(classifier)

    def correct(rows: range) -> np.ndarray:
        logits = _checked(classifier(as_floats(pixels[rows], device)), labels)
        return (logits.argmax(1).cpu() == labels[rows]).numpy()

    return np.concatenate(map_ranges(len(pixels), batch_size, correct, progress))


def map_ranges(count: int, batch_size: int, work: Callable[[range], T], progress: Progress | None = None) -> list[T]:
    """``work(rows)`` for each batch of the rows 0 .. count - 1, in order.

    Inside `contraverse.functional.sharing` each process works on its share of the batches and gets the results of all:
    they have to be picklable, and in the host's memory. ``progress`` is called with the number of rows that are done.
    """
    every = [range(first, min(first + batch_size, count)) for first in range(0, count, batch_size)]
    shares, parts = my_share(list(enumerate(every))), []
    for number, rows in shares:
        parts.append((number, work(rows)))
        if progress:
            progress(len(rows))
    if progress and (others := count - sum(len(rows) for _, rows in shares)):
        progress(others)
    return [result for _, result in sorted(all_parts(parts), key=lambda part: part[0])]

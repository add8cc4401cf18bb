"""The two views of a row that contrastive methods tell from others'."""

from typing import Any

import torch
from torch import Tensor

from contraverse.types import Batch


def both_views(batch: Batch) -> Batch:
    """Both views of every row as one batch of 2B rows: the first ones, then the second ones.

    Together, because batch norm then sees them together, as the papers' code does. See `second_view`.

    Args:
        batch: ``pixel_values`` (B, C, H, W) and ``positive``; or ``input_ids``, ``attention_mask`` (B, T).

    Returns:
        The same without ``positive``, each tensor of 2B rows.
    """
    return _one_batch(batch, second_view(batch))


def second_view(batch: Batch) -> Batch:
    """Of images the second view is ``positive``. Sentences are theirs again: dropout makes the views."""
    second: Batch = batch["positive"] if "pixel_values" in batch else batch
    return second


def twice(batch: Batch) -> Batch:
    """Every row twice, as one batch of 2B rows: the first view is to be both clean and perturbed in one pass."""
    return _one_batch(batch, batch)


def _one_batch(first: Batch, second: Batch) -> Batch:
    rows: dict[str, Any] = {}
    for name, value in first.items():
        if isinstance(value, Tensor):
            rows[name] = torch.cat([value, second.get(name, value)])
    return rows

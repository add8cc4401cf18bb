"""The two views of a row that contrastive methods tell from others'."""

from typing import Any

import torch
from torch import Tensor

from contraverse.types import Batch


def both_views(batch: Batch) -> Batch:
    """Both views of every row as one batch of 2B rows: the first ones, then the second ones.

    Together, because batch norm then sees them together, as the papers' code does. Of images the second view is
    ``positive``. Sentences come twice as they are: dropout makes the views.

    Args:
        batch: ``pixel_values`` (B, C, H, W) and ``positive``; or ``input_ids``, ``attention_mask`` (B, T).

    Returns:
        The same without ``positive``, each tensor of 2B rows.
    """
    second: Batch = batch["positive"] if "pixel_values" in batch else batch
    views: dict[str, Any] = {}
    for name, value in batch.items():
        if isinstance(value, Tensor):
            views[name] = torch.cat([value, second.get(name, value)])
    return views

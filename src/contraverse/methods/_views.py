"""Two views of a batch for contrastive methods."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from contraverse.models.modes import evaluating
from contraverse.types import Batch


def both_views(batch: Batch) -> Batch:
    """Both views of every row as one batch of 2B rows: the first views, then the second ones.

    One batch, because batch norm then sees them together, as in the papers' code. See `second_view`.

    Args:
        batch: ``pixel_values`` (B, C, H, W) and ``positive``; or ``input_ids``, ``attention_mask`` (B, T).

    Returns:
        The same without ``positive``, each tensor of 2B rows.
    """
    return _one_batch(batch, second_view(batch))


def second_view(batch: Batch) -> Batch:
    """Second view of a batch: ``positive`` of images; ``noisy`` of texts with noise (`Method.text_views`).

    Of other texts the batch itself: dropout makes their views.
    """
    second: Batch = batch["positive"] if "pixel_values" in batch else batch.get("noisy", batch)
    return second


def twice(batch: Batch) -> Batch:
    """Every row twice, as one batch of 2B rows, so that one pass runs the clean and the perturbed input."""
    return _one_batch(batch, batch)


def halves(views: Batch) -> tuple[Batch, Batch]:
    """Split a batch of 2B rows into the first and the second views."""
    rows = len(views["index"]) // 2
    return {name: value[:rows] for name, value in views.items()}, {name: value[rows:] for name, value in views.items()}


def single_row_eval(model: nn.Module, rows: int) -> AbstractContextManager[Any]:
    """Context of a training pass of ``rows`` rows: eval mode for one row, which has no batch-norm statistics."""
    return evaluating(model) if rows == 1 else nullcontext()


def _one_batch(first: Batch, second: Batch) -> Batch:
    rows: dict[str, Any] = {}
    for name, value in first.items():
        if isinstance(value, Tensor):
            rows[name] = torch.cat([value, second.get(name, value)])
    return rows

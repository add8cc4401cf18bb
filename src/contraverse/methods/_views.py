"""Two views of a batch for contrastive methods."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from contraverse.methods._settings import settings
from contraverse.models.modes import evaluating
from contraverse.types import Batch, Method


def both_views(batch: Batch) -> Batch:
    """Both views of every row as one batch of 2B rows: the first views, then the second ones.

    One batch, because batch norm then sees them together, as in the papers' code. See `second_view`.

    Args:
        batch: ``pixel_values`` (B, C, H, W) and ``positive``; or ``input_ids``, ``attention_mask`` (B, T).

    Returns:
        The same without ``positive``, each tensor of 2B rows.
    """
    return _one_batch(batch, second_view(batch))


@settings
class NoisyViews(Method):
    """Base of the methods whose second view of a text is the noisy one, or the worst of several noisy ones."""

    views_of: Literal["draw", "worst"] = "draw"
    """Noisy view of a row: one `draw`, or the `worst` of `view_draws` by the row's loss. Needs ``data.noise``."""
    view_draws: Annotated[int, Field(ge=2, le=64)] = 3
    """Number n of noisy texts that the worst is chosen of; each costs a forward pass."""

    def setup(self) -> None:
        super().setup()
        self.noisy_draws = self.view_draws if self.views_of == "worst" else 1

    @property
    def choice_cost(self) -> int:
        """Forward-units of choosing the view."""
        return self.noisy_draws if self.noisy_draws > 1 else 0

    @torch.no_grad()
    def noisy_view(self, batch: Batch, row_losses: Callable[[Batch], Tensor]) -> Batch:
        """Noisy view of each row: of several draws that of its largest loss; see `second_view` for one or none.

        The maximum over a few random edits is the inner problem of adversarial training, as that over a ball is (Madry
        et al. 2018, eq. 2.1), solved by random search. Nothing waits for the device.

        Args:
            batch: with ``draws``, tensors (n, B, T), where there are several.
            row_losses: gives the loss (B,) of each row on a batch of its draws.
        """
        draws = batch.get("draws")
        if draws is None:
            return second_view(batch)
        count, rows = draws["input_ids"].shape[:2]
        losses = torch.stack([row_losses({name: value[k] for name, value in draws.items()}) for k in range(count)])
        worst = losses.argmax(0)  # (n, B) -> (B,)
        every = torch.arange(rows, device=worst.device)
        return {name: value[worst, every] for name, value in draws.items()}  # (n, B, T) -> (B, T)


def contrast_of_rows(anchors: Tensor, views: Tensor, temperature: float) -> Tensor:
    """InfoNCE of each row (B,), anchors (B, Z) against views (B, Z) of this process alone: by which one is chosen."""
    scores = F.normalize(anchors.float(), dim=1) @ F.normalize(views.float(), dim=1).T / temperature  # (B, B)
    return F.cross_entropy(scores, torch.arange(len(scores), device=scores.device), reduction="none")


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

"""Memory bank: the latest features of every training row, so that negatives cost no forward pass."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class MemoryBank(nn.Module):
    """One unit-norm feature for each row of a data set (Wu et al. 2018).

    Buffers: ``rows`` (N, d), zero where nothing was written, and ``filled`` (N,), False there.

    Args:
        count: N.
        width: d.
        dtype: type of the rows. Half precision halves the memory, and rounds scores to three digits (float16) or two.
    """

    rows: Tensor
    filled: Tensor

    def __init__(self, count: int, width: int, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.register_buffer("rows", torch.zeros(count, width, dtype=dtype))
        self.register_buffer("filled", torch.zeros(count, dtype=torch.bool))

    def scores(self, anchors: Tensor) -> Tensor:
        """Dot products (B, N) in fp32 of unit-norm ``anchors`` (B, d) with every row; no gradient into the bank."""
        with torch.autocast(anchors.device.type, enabled=False):
            return (anchors.to(self.rows.dtype) @ self.rows.T).float()

    @torch.no_grad()
    def update(self, index: Tensor, features: Tensor, momentum: float) -> None:
        """Update rows by ``row = momentum * row + (1 - momentum) * feature``, then normalize them.

        An empty row takes the feature as it is. A row that occurs several times in ``index`` is updated as often, in
        that order, and normalized once, at the end: in closed form, so that nothing waits for the device to count.

        Args:
            index: (B,), row numbers.
            features: (B, d).
            momentum: in [0, 1).
        """
        fresh = F.normalize(features.float(), dim=1)  # (B, d)
        same = index.unsqueeze(1) == index  # (B, B)
        later = same.triu(1).sum(1)  # (B,), how often a row occurs again
        first = fresh[same.int().argmax(1)]  # (B, d), the first feature of each row
        before = torch.where(self.filled[index].unsqueeze(1), self.rows[index].float(), first)  # (B, d)
        weights = same * ((1 - momentum) * momentum**later)  # (B, B)
        with torch.autocast(features.device.type, enabled=False):
            rows = momentum ** same.sum(1, keepdim=True) * before + weights @ fresh  # (B, d)
        # Duplicates of one row hold the same value, so it does not matter which of them is written last.
        self.rows[index] = F.normalize(rows, dim=1).to(self.rows.dtype)
        self.filled[index] = True


@torch.no_grad()
def draw_negatives(
    labels: Tensor, row_labels: Tensor, count: int | None, filled: Tensor | None = None
) -> tuple[Tensor | None, Tensor]:
    """Draw rows of other labels for each anchor: ``count`` without replacement, or as many as there are.

    Args:
        labels: (B,), labels of the anchors.
        row_labels: (N,), labels of the data set.
        count: M; None takes all, and draws nothing.
        filled: (N,) bool, rows that may be drawn; None is all.

    Returns:
        Row numbers (B, M), or None for all N in order; and a mask of true negatives, (B, M) bool.
    """
    other = labels.unsqueeze(1) != row_labels  # (B, N)
    if filled is not None:
        other &= filled
    if count is None:
        return None, other
    # The largest keys are a uniform draw; one row of keys an anchor, so that B x N is the most that is held.
    keys = torch.rand(other.shape, device=other.device).masked_fill_(~other, -1.0)  # (B, N)
    top = keys.topk(min(count, len(row_labels)), dim=1, sorted=False)  # (B, M)
    return top.indices, top.values >= 0

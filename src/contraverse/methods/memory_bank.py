"""A memory bank: the features of every training row as it was last seen, so that negatives cost no forward pass."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class MemoryBank(nn.Module):
    """Unit rows, one for each row of a data set (Wu et al. 2018).

    Buffers: ``rows`` (N, d), zero where nothing was written, and ``filled`` (N,), False there.

    Args:
        count: N.
        width: d.
        dtype: of the rows. Half precision halves the memory, and rounds scores to three digits (float16) or two.
    """

    rows: Tensor
    filled: Tensor

    def __init__(self, count: int, width: int, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.register_buffer("rows", torch.zeros(count, width, dtype=dtype))
        self.register_buffer("filled", torch.zeros(count, dtype=torch.bool))

    def scores(self, anchors: Tensor) -> Tensor:
        """Products (B, N) in fp32 of ``anchors`` (B, d), of unit norm, with every row; no gradient into the bank."""
        with torch.autocast(anchors.device.type, enabled=False):
            return (anchors.to(self.rows.dtype) @ self.rows.T).float()

    @torch.no_grad()
    def update(self, index: Tensor, features: Tensor, momentum: float) -> None:
        """``row = momentum * row + (1 - momentum) * feature``, then brought back to unit norm.

        A row that was not written takes the feature as it is. One that stands several times in ``index`` is updated
        as often, in the order given, and brought to unit norm once, after the last: a closed form, so that nothing
        waits for the device to tell how often that is.

        Args:
            index: (B,), numbers of rows.
            features: (B, d).
            momentum: in [0, 1).
        """
        fresh = F.normalize(features.float(), dim=1)  # (B, d)
        same = index.unsqueeze(1) == index  # (B, B)
        later = same.triu(1).sum(1)  # (B,), how often a row comes again
        first = fresh[same.int().argmax(1)]  # (B, d), the first feature of each row
        before = torch.where(self.filled[index].unsqueeze(1), self.rows[index].float(), first)
        weights = same * ((1 - momentum) * momentum**later)  # (B, B)
        with torch.autocast(features.device.type, enabled=False):
            rows = momentum ** same.sum(1, keepdim=True) * before + weights @ fresh
        # The places of one row hold the same value, so that it does not matter which of them is written last.
        self.rows[index] = F.normalize(rows, dim=1).to(self.rows.dtype)
        self.filled[index] = True


@torch.no_grad()
def draw_negatives(
    labels: Tensor, of_rows: Tensor, count: int | None, filled: Tensor | None = None
) -> tuple[Tensor | None, Tensor]:
    """For each anchor, rows of other labels: ``count`` of them without replacement, or as many as there are.

    Args:
        labels: (B,), of the anchors.
        of_rows: (N,), of the data set.
        count: how many; None is all of them, and draws nothing.
        filled: (N,) bool, rows that may be drawn; None is all.

    Returns:
        Numbers of rows (B, M), or None for all N in order; and which of them are negatives, (B, M) bool.
    """
    other = labels.unsqueeze(1) != of_rows  # (B, N)
    if filled is not None:
        other &= filled
    if count is None:
        return None, other
    # The largest keys are a uniform draw; one row of keys an anchor, so that B x N is the most that is held.
    keys = torch.rand(other.shape, device=other.device).masked_fill_(~other, -1.0)
    top = keys.topk(min(count, len(of_rows)), dim=1, sorted=False)
    return top.indices, top.values >= 0

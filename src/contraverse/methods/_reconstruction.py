"""RAR's reconstruction loss, and the warm-up of its head."""

from collections.abc import Callable, Sequence
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from contraverse.types import Batch, HeadCall, Outputs, TrainingInfo


def reconstruction_loss(logits: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
    """Cross-entropy of every real token: the mean over a row's tokens, then over rows.

    A row thus weighs the same in any batch. A row without a real token has a loss of 0.

    Args:
        logits: (B, T, V).
        ids: (B, T), the input tokens.
        mask: (B, T), 1 for tokens that count, 0 for the others.
    """
    # Flat: over (B, V, T) the kernels stride, and take 1.6 times as long.
    token_loss = F.cross_entropy(logits.flatten(0, 1).float(), ids.flatten(), reduction="none").view_as(ids)  # (B, T)
    return ((token_loss * mask).sum(1) / mask.sum(1).clamp(min=1)).mean()


class Reconstruction(nn.Module):
    """Reconstruction of the tokens of a pass, with a warm-up in which only the head learns.

    Args:
        skip_special: leave special tokens ([CLS], [SEP], ...) out.
        warmup: epochs, >= 0, in which the head reads hidden states that are held constant.
    """

    name = "reconstruction"
    special: Tensor
    seen: Tensor

    def __init__(self, skip_special: bool, warmup: float) -> None:
        super().__init__()
        self.skip_special, self.warmup, self.epoch_examples = skip_special, warmup, 0
        self.register_buffer("special", torch.zeros(0, dtype=torch.long), persistent=False)
        if warmup:
            self.register_buffer("seen", torch.zeros((), dtype=torch.long))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Move buffers to a device, except the count that every step reads: the host would have to wait for it."""
        super()._apply(fn, recurse)
        if self.warmup:
            self.seen = self.seen.cpu()
        return self

    def prepare(self, training_info: TrainingInfo) -> None:
        """Store the special tokens and the length of an epoch."""
        self.special = torch.tensor(training_info.special_ids, dtype=torch.long)
        self.epoch_examples = training_info.epoch_examples or training_info.num_examples
        if self.warmup:
            self.seen.zero_()

    @property
    def warming(self) -> bool:
        """True if the next step trains the head alone."""
        return self.warmup > 0 and int(self.seen) < self.warmup * self.epoch_examples

    def count(self, rows: int) -> None:
        """Count the rows of a finished step, over all ranks."""
        if self.warmup:
            self.seen += rows

    def run(self, model: nn.Module, batch: Batch, delta: Tensor, want: Sequence[str]) -> Outputs:
        """Run a pass with ``want`` and the head's logits."""
        if not self.warming:
            out = model(batch, delta=delta, want=(*want, self.name))
        else:
            out = model(batch, delta=delta, want=(*want, "tokens"))
            out = model(HeadCall(self.name, (out.tokens.detach(),), out))
        assert isinstance(out, Outputs)
        return out

    def loss(self, out: Outputs, batch: Batch) -> Tensor:
        """L_R of a pass."""
        ids, mask = batch["input_ids"], batch["attention_mask"]
        if self.skip_special:
            if not len(self.special):
                raise ValueError("call prepare(training_info) before the first step (Trainer does)")
            mask = mask * ~torch.isin(ids, self.special)
        return reconstruction_loss(out.heads[self.name], ids, mask)

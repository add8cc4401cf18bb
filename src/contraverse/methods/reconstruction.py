"""RAR's reconstruction loss, and how its head learns."""

from collections.abc import Callable, Sequence
from typing import Annotated, Self

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from contraverse.types import Batch, HeadCall, Outputs, TrainingInfo

SkipSpecial = Annotated[bool, Field(description="whether special tokens are left out of the reconstruction")]
Warmup = Annotated[
    float, Field(ge=0, allow_inf_nan=False, description="epochs in which reconstruction trains its head alone")
]


def reconstruction_loss(logits: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
    """Cross-entropy of every real token: the mean over a row's tokens, then over rows.

    So that a row weighs the same in whatever batch it stands. A row without a real token has a loss of 0.

    Args:
        logits: (B, T, V).
        ids: (B, T), the tokens that were there.
        mask: (B, T), 1 for tokens that count, 0 for the others.
    """
    # In rows: over (B, V, T) the kernels stride, and take 1.6 times as long.
    each = F.cross_entropy(logits.flatten(0, 1).float(), ids.flatten(), reduction="none").view_as(ids)
    return ((each * mask).sum(1) / mask.sum(1).clamp(min=1)).mean()


class Reconstruction(nn.Module):
    """Reconstruction of the tokens of a pass: which of them count, and since when the encoder learns from it.

    Args:
        skip_special: whether special tokens ([CLS], [SEP], ...) are left out.
        warmup: epochs, >= 0, in which the head reads hidden states that are held constant: it learns alone.
    """

    name = "reconstruction"
    special: Tensor
    seen: Tensor

    def __init__(self, skip_special: bool, warmup: float) -> None:
        super().__init__()
        self.skip_special, self.warmup, self.epoch_rows = skip_special, warmup, 0
        self.register_buffer("special", torch.zeros(0, dtype=torch.long), persistent=False)
        if warmup:
            self.register_buffer("seen", torch.zeros((), dtype=torch.long))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Buffers move to a device, but for the count that is read in every step, which would have to wait for it."""
        super()._apply(fn, recurse)
        if self.warmup:
            self.seen = self.seen.cpu()
        return self

    def prepare(self, training_info: TrainingInfo) -> None:
        """Learn which tokens are special and how long an epoch is."""
        self.special = torch.tensor(training_info.special_ids, dtype=torch.long)
        self.epoch_rows = training_info.epoch_examples or training_info.num_examples
        if self.warmup:
            self.seen.zero_()

    @property
    def warming(self) -> bool:
        """Whether the head learns alone in the next step."""
        return self.warmup > 0 and int(self.seen) < self.warmup * self.epoch_rows

    def count(self, rows: int) -> None:
        """Note that a step with so many rows, of all ranks, is over."""
        if self.warmup:
            self.seen += rows

    def run(self, model: nn.Module, batch: Batch, delta: Tensor, want: Sequence[str]) -> Outputs:
        """A pass with ``want`` and the head's logits."""
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
                raise ValueError("call prepare(facts) before the first step (Trainer does)")
            mask = mask * ~torch.isin(ids, self.special)
        return reconstruction_loss(out.heads[self.name], ids, mask)

"""Masked language modelling (Devlin et al., 2019): further pre-training on the texts at hand."""

from collections.abc import Iterator
from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field, validate_call
from torch import Tensor, nn

from contraverse.errors import UserError
from contraverse.functional import gather
from contraverse.types import Batch, HeadCall, HeadSpec, Loss, Method, TrainingInfo

Share = Annotated[float, Field(gt=0, le=1, allow_inf_nan=False, description="share of the tokens that is predicted")]
HIDDEN, REPLACED = 0.8, 0.1
"""BERT's shares of the chosen tokens: [MASK] stands for them, a random token does; the rest stay as they are."""


class MaskedLanguageModelling(Method):
    """A share of the tokens is hidden, and each has to be told from the rest of its sentence.

        M = share of the positions of x that hold text, at random
        x' = x with, in M: [MASK] at 80 %, a random token at 10 %, what was there at 10 %
        L  = -1/|M| sum_{j in M} log p(x_j | x')

    p is a masked-language head whose decoder is the word embeddings; it runs on the positions in M alone.

    Batch: sentences (or pairs of them in one row). Cost: F + B = 3F, and the head on the chosen positions.

    Departures: BERT's own code draws M once for ten copies of the data, here it is drawn at every step; the number of
    positions is theirs, ``max(1, round(share * n))`` of a row with n tokens of text. There is no next-sentence loss.

    Args:
        mlm_probability: the share, in (0, 1].
    """

    name = "mlm"
    summary = "hidden tokens are told from the rest of the sentence: further pre-training"
    paper = "BERT"
    equation = "section 3.1, task 1 of BERT"
    modality = "text"
    requires = "inputs"
    cost = "3F"
    heads = {"reconstruction": HeadSpec(kind="mlm")}

    @validate_call
    def __init__(self, *, mlm_probability: Share = 0.15) -> None:
        super().__init__()
        self.share = mlm_probability
        self.vocab_size: int | None = None
        self.mask_id: int | None = None
        self.special_ids: tuple[int, ...] = ()

    def prepare(self, training_info: TrainingInfo) -> None:
        """Learn how many tokens there are, and which of them hide others.

        Raises:
            UserError: the tokenizer has no mask token.
        """
        if training_info.vocab_size is None or training_info.mask_id is None:
            raise UserError("mlm needs a tokenizer with a mask token, and this one has none")
        self.vocab_size, self.mask_id, self.special_ids = (
            training_info.vocab_size,
            training_info.mask_id,
            training_info.special_ids,
        )

    def losses(self, model: nn.Module, batch: Batch) -> Iterator[Loss]:
        ids = batch["input_ids"]
        chosen = self.choose(ids, batch["attention_mask"])
        out = model({**batch, "input_ids": self.hide(ids, chosen)}, want=("tokens",))
        logits = model(HeadCall("reconstruction", (out.tokens[chosen],), out)).heads["reconstruction"].float()
        # DDP takes the mean over ranks, which may have chosen different numbers: each divides by the mean of them. The
        # mean over no positions, of a batch without any text, would be NaN.
        count = gather(chosen.sum().reshape(1)).float().mean().clamp(min=1)
        loss = F.cross_entropy(logits, ids[chosen], reduction="sum") / count
        found = (logits.detach().argmax(1) == ids[chosen]).sum() / count
        yield Loss(loss, {"mlm": loss.detach(), "found": found})

    def choose(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Which positions are to be predicted, (B, T) bool: of each row its share, never padding or special tokens."""
        text = mask.bool() & ~torch.isin(ids, ids.new_tensor(self.special_ids))
        places = torch.rand(ids.shape, device=ids.device).masked_fill(~text, torch.inf).argsort(1).argsort(1)
        count = (text.sum(1, keepdim=True) * self.share).round().clamp(min=1)
        return text & (places < count)

    def hide(self, ids: Tensor, chosen: Tensor) -> Tensor:
        """``ids`` (B, T) with what was ``chosen`` hidden, replaced or kept."""
        if self.vocab_size is None or self.mask_id is None:
            raise ValueError("call prepare(facts) before the first step (Trainer does)")
        fate = torch.rand(ids.shape, device=ids.device)
        tokens = torch.randint(self.vocab_size, ids.shape, device=ids.device)
        tokens = torch.where(fate < HIDDEN, self.mask_id, tokens)
        return torch.where(chosen & (fate < HIDDEN + REPLACED), tokens, ids)

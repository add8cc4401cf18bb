"""Masked language modelling (Devlin et al., 2019): further pre-training on the user's texts."""

from collections.abc import Iterator
from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from contraverse.errors import UserError
from contraverse.functional import gather
from contraverse.methods._settings import settings
from contraverse.types import UNLABELLED, Batch, HeadCall, HeadSpec, Loss, Method, TrainingInfo

HIDDEN, REPLACED = 0.8, 0.1
"""BERT's shares of the chosen tokens that become [MASK], or a random token; the rest stay as they are."""


@settings
class MaskedLanguageModelling(Method):
    """Further pre-training: predict a random share of the tokens, hidden in the input, from the rest of the sentence.

        M = share of the text positions of x, at random
        x' = x with, in M: [MASK] at 80 %, a random token at 10 %, the token itself at 10 %
        L  = -1/|M| sum_{j in M} log p(x_j | x')

    p is a masked-language head whose decoder is the word embeddings; it runs on as many positions of each row as the
    longest row can have in M.

    Batch: sentences (or pairs of them in one row). Cost: F + B = 3F, and the head on the chosen positions.

    Departures: BERT's own code draws M once for ten copies of the data, here it is drawn at every step; the number of
    positions is theirs, ``max(1, round(share * n))`` of a row with n tokens of text. There is no next-sentence loss.
    """

    name = "mlm"
    summary = "masked language modelling: further pre-training on your texts"
    paper = "BERT"
    equation = "section 3.1, task 1 of BERT"
    modality = "text"
    requires = "inputs"
    cost = "3F"
    stochastic = True
    heads = {"reconstruction": HeadSpec(kind="mlm")}
    test_settings = {"mlm-most": {"mlm_probability": 0.5}}

    mlm_probability: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] = 0.15
    """Share of the text positions that are predicted; BERT's value."""

    def setup(self) -> None:
        self.vocab_size: int | None = None
        self.mask_id: int | None = None
        self.special_ids: tuple[int, ...] = ()

    def prepare(self, training_info: TrainingInfo) -> None:
        """Store the vocabulary size and the ids of the mask and special tokens.

        Raises:
            UserError: the tokenizer has no mask token.
        """
        super().prepare(training_info)
        if training_info.vocab_size is None or training_info.mask_id is None:
            raise UserError("mlm needs a tokenizer with a mask token, and this one has none")
        self.vocab_size, self.mask_id = training_info.vocab_size, training_info.mask_id
        self.special_ids = training_info.special_ids

    def losses(self, model: nn.Module, batch: Batch) -> Iterator[Loss]:
        ids = batch["input_ids"]
        chosen = self.choose(ids, batch["attention_mask"])  # (B, T)
        out = model({**batch, "input_ids": self.hide(ids, chosen)}, want=("tokens",))
        places, valid = self.gathered_places(chosen)  # (B, K) each
        hidden = out.tokens.gather(1, places.unsqueeze(-1).expand(-1, -1, out.tokens.shape[-1]))  # (B, K, H)
        logits = model(HeadCall("reconstruction", (hidden.flatten(0, 1),), out)).heads["reconstruction"]  # (B K, V)
        answers = torch.where(valid, ids.gather(1, places), UNLABELLED).flatten()  # (B K,)
        # DDP takes the mean over ranks, which may have chosen different numbers: each divides by the mean of them. The
        # mean over no positions, of a batch without any text, would be NaN.
        count = gather(chosen.sum().reshape(1)).float().mean().clamp(min=1)
        loss = F.cross_entropy(logits.float(), answers, ignore_index=UNLABELLED, reduction="sum") / count
        accuracy = (logits.detach().argmax(1) == answers).sum() / count
        yield Loss(loss, {"mlm": loss.detach(), "mlm_accuracy": accuracy})

    def choose(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Draw the positions to predict, (B, T) bool: a share of each row, never padding or special tokens."""
        text = mask.bool()
        for special in self.special_ids:  # numbers travel with the kernel; a tensor of them would be copied each time
            text = text & (ids != special)
        # argsort of argsort is each token's place in a random order; what is no text comes last.
        places = torch.rand(ids.shape, device=ids.device).masked_fill(~text, torch.inf).argsort(1).argsort(1)
        count = (text.sum(1, keepdim=True) * self.mlm_probability).round().clamp(min=1)  # (B, 1)
        return text & (places < count)

    def gathered_places(self, chosen: Tensor) -> tuple[Tensor, Tensor]:
        """Places (B, K) of the ``chosen`` positions (B, T) of each row, and (B, K) bool: true of those alone.

        K is the most that a row of T tokens can have, so that the host need not ask how many there are.
        """
        most = int((torch.tensor(chosen.shape[1]) * self.mlm_probability).round().clamp(min=1))  # of the host, as above
        places = torch.argsort(chosen.byte(), dim=1, descending=True, stable=True)[:, :most]
        return places, chosen.gather(1, places)

    def hide(self, ids: Tensor, chosen: Tensor) -> Tensor:
        """Replace the ``chosen`` ids (B, T) by [MASK], by a random token, or not at all."""
        if self.vocab_size is None or self.mask_id is None:
            raise ValueError("call prepare(training_info) before the first step (Trainer does)")
        fate = torch.rand(ids.shape, device=ids.device)
        tokens = torch.randint(self.vocab_size, ids.shape, device=ids.device)
        tokens = torch.where(fate < HIDDEN, self.mask_id, tokens)
        return torch.where(chosen & (fate < HIDDEN + REPLACED), tokens, ids)

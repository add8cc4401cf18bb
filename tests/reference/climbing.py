"""Losses to climb, and the gradient that an attack ought to follow."""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from contraverse.attacks import LossOf
from contraverse.models import TextModel
from contraverse.types import Inputs


def per_row(model: nn.Module, batch: Any) -> LossOf:
    return lambda delta: F.cross_entropy(model(batch, delta=delta).logits, batch["labels"], reduction="none")


def mean(model: nn.Module, batch: Any) -> LossOf:
    return lambda delta: per_row(model, batch)(delta).mean()


def gradient(model: TextModel, batch: Any) -> np.ndarray:
    """The gradient of the mean cross-entropy at the word embeddings, by Hugging Face's own forward."""
    embeddings = model.encoder.get_input_embeddings()(batch["input_ids"]).detach().requires_grad_()
    out = model.encoder(inputs_embeds=embeddings, attention_mask=batch["attention_mask"], labels=batch["labels"])
    (grad,) = torch.autograd.grad(out.loss, embeddings)
    return grad.double().numpy() * batch["attention_mask"].unsqueeze(-1).numpy()


def longer(batch: Any, more: int = 5) -> Any:
    """The same rows with ``more`` further columns of padding."""
    ids = F.pad(batch["input_ids"], (0, more))
    return {**batch, "input_ids": ids, "attention_mask": F.pad(batch["attention_mask"], (0, more))}


class Quadratic:
    """Loss of row i: ``||delta_i - target_i||^2``; keeps what it was asked, and counts gradients."""

    def __init__(self, target: Tensor) -> None:
        self.target, self.asked, self.backwards = target, [], 0

    def __call__(self, delta: Tensor) -> Tensor:
        self.asked.append(delta.detach().clone())
        if delta.requires_grad and torch.is_grad_enabled():
            delta.register_hook(self._count)
        return (delta - self.target).square().flatten(1).sum(1)

    def _count(self, grad: Tensor) -> None:
        self.backwards += 1


def everywhere(rows: int = 3, tokens: int = 4, width: int = 5) -> Inputs:
    return Inputs(torch.randn(rows, tokens, width), torch.ones(rows, tokens, 1, dtype=torch.bool))

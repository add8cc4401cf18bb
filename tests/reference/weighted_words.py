"""The classifier of `freelb_reference` as a `Model`, so that a method can train it."""

from typing import Any

import numpy as np
import torch
from reference.freelb_reference import Array, Classifier
from torch import Tensor, nn

from contraverse.types import Inputs, Model, Outputs


def random_classifier(words: int = 11, width: int = 4, classes: int = 3, places: int = 6, seed: int = 0) -> Classifier:
    """Weights of size 1; the gradient of a position is between .5 and 1.5 times that of another."""
    random = np.random.default_rng(seed)
    table, weight, bias = (random.normal(size=shape) for shape in ((words, width), (classes, width), (classes,)))
    return Classifier(table, weight, bias, random.uniform(0.5, 1.5, size=places))


class WeightedWords(Model):
    """Parameters ``table``, ``weight``, ``bias`` by the names of the reference; ``tokens`` are the perturbed words."""

    def __init__(self, like: Classifier) -> None:
        super().__init__()
        for name in ("table", "weight", "bias"):
            setattr(self, name, nn.Parameter(torch.tensor(getattr(like, name), dtype=torch.float32)))
        self.register_buffer("places", torch.tensor(like.places, dtype=torch.float32))

    def forward(self, batch: Any, *, delta: Tensor | None = None, want: Any = ("logits",), **_: Any) -> Outputs:
        mask = batch["attention_mask"].bool().unsqueeze(-1)
        words = self.table[batch["input_ids"]]
        given = words if delta is None else words + delta
        h = (given * mask * self.places[: mask.shape[1]].unsqueeze(-1)).sum(1)
        return Outputs(logits=h @ self.weight.T + self.bias, h=h, tokens=given, inputs=Inputs(words.detach(), mask))


def ragged(lengths: tuple[int, ...] = (6, 4, 3), words: int = 11, classes: int = 3, seed: int = 1) -> Any:
    """A padded batch, with the sentences and labels that the reference takes."""
    random = np.random.default_rng(seed)
    sentences = [random.integers(1, words, size=n).tolist() for n in lengths]
    ids = torch.zeros(len(lengths), max(lengths), dtype=torch.long)
    for i, sentence in enumerate(sentences):
        ids[i, : len(sentence)] = torch.tensor(sentence)
    labels = random.integers(classes, size=len(lengths)).tolist()
    batch = {"input_ids": ids, "attention_mask": (ids != 0).long(), "labels": torch.tensor(labels)}
    return batch, sentences, labels


def cut(delta: Tensor, sentences: list[list[int]]) -> list[Array]:
    """The perturbations of a padded batch (B, T, D), one array (T_i, D) a sentence."""
    return [row[: len(s)].detach().double().numpy() for row, s in zip(delta, sentences, strict=True)]

"""A linear classifier of bags of words as a model of the package, and data that it is mostly right on."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from contraverse.data import TextData
from contraverse.evaluation import predict
from contraverse.models import TextModel
from contraverse.types import Batch, Inputs, Outputs, Wanted


class BagOfWords(TextModel):
    """Logits ``W mean_t(E_t + delta_t) + b`` over real tokens: its robust accuracy is known in closed form."""

    def __init__(self, tokenizer: Any, classes: int, width: int = 6) -> None:
        encoder: Any = nn.ModuleDict({"embed": nn.Embedding(len(tokenizer), width), "out": nn.Linear(width, classes)})
        super().__init__(encoder, tokenizer, labels=[str(i) for i in range(classes)])
        nn.init.normal_(encoder["out"].weight)
        self.rows_seen = 0

    @property
    def device(self) -> torch.device:
        return torch.device("cpu")

    def forward(
        self,
        batch: Batch,
        *,
        delta: Tensor | None = None,
        want: Sequence[Wanted] = ("logits",),
        bn_branch: Any = "clean",
    ) -> Outputs:
        values, mask = self.encoder["embed"](batch["input_ids"]), batch["attention_mask"].bool().unsqueeze(-1)
        if "inputs" in want:
            return Outputs(inputs=Inputs(values.detach(), mask))
        self.rows_seen += len(values)
        moved = values if delta is None else values + delta
        h = (moved * mask).sum(1) / mask.sum(1)
        return Outputs(logits=self.encoder["out"](h), h=h)

    def scaled(self, factor: float) -> "BagOfWords":
        """The same predictions from logits ``factor`` times as large: 1e4 saturates any softmax."""
        with torch.no_grad():
            self.encoder["out"].weight.mul_(factor)
            self.encoder["out"].bias.mul_(factor)
        return self

    def arrays(self, data: TextData) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
        """Word embeddings of each row, weight and bias in float64."""
        ids = [self.tokenizer(text)["input_ids"] for (text,) in data.texts]
        table = self.encoder["embed"].weight.detach().double().numpy()
        out = self.encoder["out"]
        return [table[row] for row in ids], out.weight.detach().double().numpy(), out.bias.detach().double().numpy()


def relabel(data: TextData, labels: Sequence[int], classes: int) -> TextData:
    names = tuple(str(i) for i in range(classes))
    return TextData.from_rows(data.texts, labels=[int(label) for label in labels], label_names=names)


def mostly_right(model: TextModel, data: TextData) -> TextData:
    """Labelled as the model predicts, but for every fifth row."""
    classes = len(model.labels or ())
    labels = predict(model, data).argmax(1)
    labels[::5] = (labels[::5] + 1) % classes
    return relabel(data, labels, classes)

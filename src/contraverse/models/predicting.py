"""Logits, labels and probabilities for whole sets of inputs, in batches of like length."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from scipy.special import softmax
from torch import Tensor

from contraverse.data import Encoded, EncodedText, ImageData
from contraverse.errors import UserError
from contraverse.functional import all_parts, my_share
from contraverse.models.detector import Detector
from contraverse.models.inputs import image_pixels, text_data
from contraverse.models.modes import evaluating
from contraverse.types import Batch, BNBranch, Model

if TYPE_CHECKING:
    from contraverse.models import AnyModel
    from contraverse.models.image import ImageModel
    from contraverse.models.text import TextModel

T = TypeVar("T")
Progress = Callable[[int], None]
"""Called after each batch with its number of rows; with several processes, at the end with the rows of the others."""


class Predictor(Model):
    """A model that predicts labels of inputs as users hold them."""

    detector: Detector | None = None
    """Threshold by which `predict` decides for one class, saved with the model; None: the most probable class."""

    @property
    def label_names(self) -> tuple[str, ...]:
        """Names of the columns of `predict_proba`: ``labels``, none of an encoder."""
        return tuple(self.labels or ())

    def predict(
        self, inputs: Any, batch_size: int = 64, *, bn_branch: BNBranch = "adversarial"
    ) -> list[str] | list[float]:
        """Label of each input: the name of its most probable class; of a regression its score.

        A model with a ``detector`` decides for its class by the threshold: see `Detector.decide`.

        Runs in eval mode without gradients, in the order of ``inputs``.

        Args:
            inputs: of a `TextModel` a list of texts or of pairs of texts, an array, a pandas column, a `TextData`.
                Texts are cut at ``max_length`` tokens, as in training and evaluation. Of an `ImageModel` a list of
                paths, PIL images or arrays; an array or tensor (N, H, W), (N, H, W, C) or (N, C, H, W) of bytes or of
                floats in [0, 1]; an `ImageData`. Files and PIL images are scaled to ``image_size`` where it is known;
                arrays stay as they are.
            batch_size: inputs at a time.
            bn_branch: set of a dual `ImageModel`'s batch norms.

        Raises:
            UserError: the model is an encoder without labels, or an input cannot be read.
        """
        logits = self._checked_logits(inputs, batch_size, bn_branch)
        return labels_for(logits, self.label_names, self.detector)

    def predict_proba(self, inputs: Any, batch_size: int = 64, *, bn_branch: BNBranch = "adversarial") -> np.ndarray:
        """Probability of each class for each input, (N, C) float32; `label_names` names the columns.

        The arguments are those of `predict`.

        Raises:
            UserError: as `predict`, or the model is a regression.
        """
        return probabilities(self._checked_logits(inputs, batch_size, bn_branch), self.label_names)

    def _checked_logits(self, inputs: Any, batch_size: int, bn_branch: BNBranch) -> np.ndarray:
        if self.labels is None:
            raise UserError("an encoder predicts no labels", hint="load the model with labels=[...], and train it")
        return self._logits(inputs, batch_size, bn_branch)

    def _logits(self, inputs: Any, batch_size: int, bn_branch: BNBranch) -> np.ndarray:
        """Logits (N, C) float32."""
        raise NotImplementedError


def logits_of(
    model: "AnyModel", batch: Batch, delta: Tensor | None = None, *, bn_branch: BNBranch = "adversarial"
) -> Tensor:
    """Logits (B, C) in fp32 of one forward pass, by default with the batch norms that a dual model is tested with."""
    logits: Tensor = model(batch, delta=delta, want=("logits",), bn_branch=bn_branch).logits
    return logits.float()


def predict_logits(
    model: "AnyModel",
    data: Encoded,
    batch_size: int,
    *,
    bn_branch: BNBranch = "adversarial",
    progress: Progress | None = None,
) -> np.ndarray:
    """Logits (N, C) float32 of all rows, in the order of ``data``; see `contraverse.evaluation.predict`."""

    def logits(rows: np.ndarray, batch: Batch) -> np.ndarray:
        return logits_of(model, batch, bn_branch=bn_branch).cpu().numpy()

    with evaluating(model), torch.no_grad():
        parts = map_batches(model, data, np.arange(len(data)), batch_size, logits, progress)
    order, values = zip(*parts, strict=True)
    return np.concatenate(values)[np.argsort(np.concatenate(order))]


def predict_texts(model: "TextModel", texts: Any, batch_size: int) -> np.ndarray:
    """Logits (N, C) of texts or pairs of texts: see `TextModel.predict`."""
    data = text_data(texts)
    if not len(data):
        return np.empty((0, len(model.label_names)), dtype=np.float32)
    return predict_logits(model, EncodedText(data, model.tokenizer, model.max_length), batch_size)


def predict_images(model: "ImageModel", images: Any, batch_size: int, bn_branch: BNBranch) -> np.ndarray:
    """Logits (N, C) of images: see `ImageModel.predict`."""
    pixels = image_pixels(images, model.image_size)
    logits = np.empty((len(pixels), len(model.label_names)), dtype=np.float32)
    # Images of one size share a batch.
    sizes = np.unique([image.shape[1] * 2**32 + image.shape[2] for image in pixels], return_inverse=True)[1]
    with evaluating(model), torch.no_grad():
        for size in range(max(sizes, default=-1) + 1):
            rows = np.flatnonzero(sizes == size)
            for first in range(0, len(rows), batch_size):
                chosen = rows[first : first + batch_size]
                batch = {"pixel_values": torch.stack([pixels[row] for row in chosen]).to(model.device)}
                logits[chosen] = logits_of(model, batch, bn_branch=bn_branch).cpu().numpy()
    return logits


def map_batches(
    model: "AnyModel",
    data: Encoded,
    rows: np.ndarray,
    batch_size: int,
    work: Callable[[np.ndarray, dict[str, Tensor]], T],
    progress: Progress | None = None,
    *,
    each: int = 1,
) -> list[tuple[np.ndarray, T]]:
    """``work(rows, batch)`` for each batch of the chosen rows: ``(rows, result)``, the longest rows first.

    Inside `contraverse.functional.sharing` each process works on its share of the batches and gets the results of all,
    in the order that one process has. They have to be picklable, and in the host's memory.

    Args:
        model: names the device.
        data: encoded rows.
        rows: numbers of the chosen ones.
        batch_size: rows a batch.
        work: called with the numbers of a batch's rows, and the batch on the model's device.
        progress: called with ``each`` for every row that is done, here or in another process.
        each: see ``progress``.
    """
    shares = my_share(list(enumerate(length_sorted(np.asarray(data.lengths)[rows], batch_size))))
    parts = []
    for number, chosen in shares:
        parts.append((number, rows[chosen], work(rows[chosen], load_batch(model, data, rows[chosen]))))
        if progress:
            progress(each * len(chosen))
    if progress and (others := len(rows) - sum(len(chosen) for _, chosen in shares)):
        progress(each * others)
    return [(chosen, result) for _, chosen, result in sorted(all_parts(parts), key=lambda part: part[0])]


def load_batch(model: "AnyModel", data: Encoded, rows: np.ndarray) -> dict[str, Tensor]:
    """These rows as one batch on the model's device."""
    numbers = [int(row) for row in rows]
    batch = data.collate(data.__getitems__(numbers) if isinstance(data, ImageData) else [data[row] for row in numbers])
    return {key: value.to(model.device) for key, value in batch.items() if isinstance(value, Tensor)}


def length_sorted(lengths: Sequence[int] | np.ndarray, batch_size: int) -> list[np.ndarray]:
    """Positions 0 .. N-1, longest first, cut into batches of ``batch_size``; equal lengths keep their order."""
    order = np.argsort(-np.asarray(lengths, dtype=np.int64), kind="stable")
    return [order[first : first + batch_size] for first in range(0, len(order), batch_size)]


def labels_for(logits: np.ndarray, labels: Sequence[str], detector: Detector | None = None) -> list[str] | list[float]:
    """Class of each row of ``logits`` (N, C) by name; of a regression, (N, 1), the score.

    The class is the most probable one, or that of ``detector``'s decision.
    """
    if len(labels) == 1:
        return [float(score) for score in logits[:, 0]]
    chosen = logits.argmax(1) if detector is None else detector.decide(logits, labels)
    return [labels[i] for i in chosen]


def probabilities(logits: np.ndarray, labels: Sequence[str]) -> np.ndarray:
    """Softmax over the classes, (N, C) float32, computed in float64.

    Raises:
        UserError: a regression, which has one score in the place of probabilities.
    """
    if len(labels) == 1:
        raise UserError("a regression has no probabilities", hint="predict gives its scores")
    return softmax(logits.astype(np.float64), axis=1).astype(np.float32)

"""Classes of unequal size: weights of the loss, and batches that hold every class equally often."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor
from torch.utils.data import Sampler
from transformers import TrainingArguments

from contraverse.data import Encoded, EncodedText, Rows, TextData
from contraverse.data.encoding import shuffled_batches
from contraverse.errors import UserError, unknown
from contraverse.types import UNLABELLED, Method

ClassWeights = Literal["balanced"] | Mapping[str, float]
"""``balanced``, or the weight of a class by its name; classes that are not named have 1."""
_GROUP = 50  # batches that are sorted by length together, as in LengthGroupedSampler


def item_labels(rows: Rows) -> np.ndarray | None:
    """Class (n,) int64 of each item of an epoch, `UNLABELLED` where there is none; None of scores or without labels."""
    data = rows.data if isinstance(rows, EncodedText) else rows
    if data.labels is None or data.label_names is None:
        return None
    labels = np.asarray(data.labels, dtype=np.int64)
    repeats = data.repeats if isinstance(data, TextData) else None
    return labels if repeats is None else np.repeat(labels, repeats)


def check_classes(method: Method, rows: Rows, where: str) -> np.ndarray:
    """Class (n,) of each item.

    Raises:
        UserError: the method reads no labels, or they are scores.
    """
    if method.requires != "labels":
        raise UserError(f"{method.name} reads no labels", where=where, hint="leave it out, or take a method such as ce")
    labels = item_labels(rows)
    if labels is None:
        raise UserError("the rows have no classes but scores", where=where, hint="leave it out")
    return labels


def weights_of_classes(weights: ClassWeights, method: Method, rows: Rows, names: Sequence[str] | None) -> Tensor:
    """Weights (C,) float32 of the classes' cross-entropy.

    ``balanced`` is ``n / (C n_c)`` of n labelled items, n_c of them of class c, over the C classes that there are: each
    class has the same share of the loss, and the mean weight of an item is 1 (King and Zeng 2001; scikit-learn's
    ``class_weight="balanced"``).

    Args:
        weights: see `ClassWeights`.
        method: must train on labels.
        rows: training rows; a row counts as often as an epoch holds it.
        names: of the classes, in the order of the logits.

    Raises:
        UserError: the method reads no labels, the labels are scores, there is no such class, or a weight is not a
            positive number.
    """
    labels, where = check_classes(method, rows, "train.class_weights"), "train.class_weights"
    names = list(names or ())
    if weights == "balanced":
        counts = np.bincount(labels[labels != UNLABELLED], minlength=len(names)).astype(np.float64)  # (C,)
        present = counts > 0
        balanced = counts.sum() / (present.sum() * np.where(present, counts, 1))  # (C,)
        return torch.from_numpy(np.where(present, balanced, 1.0)).float()
    if not isinstance(weights, Mapping):
        raise UserError(f"{weights!r} is no weighting of classes", where=where, hint="balanced, or weights by class")
    for name, weight in weights.items():
        if name not in names:
            raise unknown("class", name, names, where=where)
        if not (isinstance(weight, int | float) and math.isfinite(weight) and weight > 0):
            raise UserError(f"the weight of {name} is {weight!r}, not a positive number", where=where)
    return torch.tensor([float(weights.get(name, 1.0)) for name in names])


class BalancedSampler(Sampler[int]):
    """Row numbers whose consecutive chunks of ``batch_size`` hold every class equally often, to within one row.

    An epoch has as many rows as there are. Each class is gone through in a random order, and in a new one when it is
    used up: rows of a rare class come several times in an epoch, and of a frequent one an epoch holds a part. The
    order is a function of ``seed`` and the epoch alone. Within a batch it is random, so that the processes of a run
    share out every class.

    Args:
        labels: (n,), class of each row.
        batch_size: rows of all processes together.
        seed: of the order.
        lengths: (n,), tokens of each row: rows of a batch have like lengths, as `LengthGroupedSampler` has it, though
            less so, since a rare class has few rows to choose from; None leaves the lengths to chance.

    Raises:
        UserError: an empty batch, or a row without a label.
    """

    def __init__(self, labels: np.ndarray, batch_size: int, seed: int, lengths: ArrayLike | None = None) -> None:
        if batch_size < 1:
            raise UserError(f"a batch has at least one row, not {batch_size}")
        if (labels == UNLABELLED).any():
            hint = "leave train.batches out, or give the labelled rows alone"
            raise UserError("rows without a label have no class to balance", where="train.batches", hint=hint)
        self.lengths = None if lengths is None else np.asarray(lengths)
        self.batch_size, self.seed, self.epoch = batch_size, seed, 0
        self._rows = [np.flatnonzero(labels == label) for label in np.unique(labels)]
        self._count = len(labels)

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of that epoch (from 0) for the next iteration."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[int]:
        random = np.random.default_rng((self.seed, self.epoch))
        for batch in shuffled_batches(self._batches(random), self.batch_size, random, self.lengths):
            yield from random.permutation(batch).tolist()

    def _batches(self, random: np.random.Generator) -> list[np.ndarray]:
        """Rows of each batch of an epoch, those of a group of batches by length."""
        quotas = self._quotas(random)  # (batches, C)
        parts: list[list[np.ndarray]] = [[] for _ in quotas]
        for c, rows in enumerate(self._rows):
            drawn = _repeated(rows, int(quotas[:, c].sum()), random)
            ends = np.cumsum(quotas[:, c])
            if self.lengths is not None:
                for group in np.array_split(np.arange(len(quotas)), max(1, len(quotas) // _GROUP)):
                    part = slice(ends[group[0]] - quotas[group[0], c], ends[group[-1]])
                    # Longest first, so that what is left for the one partial batch are short rows.
                    drawn[part] = drawn[part][np.argsort(-self.lengths[drawn[part]], kind="stable")]
            for batch, chosen in zip(parts, np.split(drawn, ends[:-1]), strict=True):
                batch.append(chosen)
        return [np.concatenate(batch) for batch in parts]

    def _quotas(self, random: np.random.Generator) -> np.ndarray:
        """Number of rows of each class in each batch (batches, C)."""
        classes, full = len(self._rows), self._count // self.batch_size
        sizes = [self.batch_size] * full + [self._count % self.batch_size] * (self._count % self.batch_size > 0)
        quotas = np.zeros((len(sizes), classes), dtype=np.int64)
        for quota, size in zip(quotas, sizes, strict=True):
            quota += size // classes
            quota[random.permutation(classes)[: size % classes]] += 1
        return quotas


def balanced_sampler(method: Method, rows: Encoded, args: TrainingArguments) -> BalancedSampler:
    """Build the sampler of balanced batches for ``args``.

    Raises:
        UserError: the method reads no labels, the labels are scores, or a row has none.
    """
    labels = check_classes(method, rows, "train.batches")
    lengths = rows.lengths if args.train_sampling_strategy == "group_by_length" else None
    seed = args.data_seed if args.data_seed is not None else args.seed
    return BalancedSampler(labels, args.train_batch_size * args.world_size, seed, lengths)


def _repeated(rows: np.ndarray, count: int, random: np.random.Generator) -> np.ndarray:
    """``count`` of ``rows``: one random order of them after the other."""
    rounds = [random.permutation(rows) for _ in range(-(-count // len(rows)))]
    return np.concatenate([*rounds, rows[:0]])[:count]

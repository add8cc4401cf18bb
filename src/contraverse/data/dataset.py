"""Texts with their labels, split into training, validation and test rows, and their tokens."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, cast

import numpy as np
from torch.utils.data import Dataset

from contraverse.data.batching import Collator
from contraverse.data.columns import Columns
from contraverse.data.drawing import part_rows, sample_rows
from contraverse.data.folder import BY_SPLIT
from contraverse.data.tasks import Task
from contraverse.data.values import Labels, class_ids, text_rows
from contraverse.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_COLUMNS = {1: ("text",), 2: ("sentence1", "sentence2"), 3: ("anchor", "positive", "negative")}


class Row(NamedTuple):
    """One row: its texts, one for each column, and its label if it has one."""

    texts: tuple[str, ...]
    label: int | float | None


@dataclass
class TextData:
    """Rows of texts, kept as they came.

    ``texts``: for each row one string (a sentence), two (a pair) or three (anchor, positive, negative), under
    ``columns``. ``labels``: class ids in [0, len(label_names)), float scores, or None. ``source``: where they are
    from. ``repeats``: how often training sees each row in an epoch, None for once; its length and its row numbers
    are those of the different rows all the same. Made by `load_splits`, or from Python values by
    `TextData.from_rows`.
    """

    texts: list[tuple[str, ...]]
    labels: Labels
    label_names: tuple[str, ...] | None
    columns: tuple[str, ...]
    source: str = "memory"
    repeats: list[int] | None = None

    @classmethod
    def from_rows(
        cls,
        texts: Sequence[str | Sequence[str]],
        labels: Sequence[int] | Sequence[float] | Sequence[str] | None = None,
        label_names: Sequence[str] | None = None,
    ) -> "TextData":
        """Rows from Python values.

        ``texts``: a string or a tuple of strings for each row. ``labels``: class ids, class names or float scores, in a
        list, an array, a tensor or a column; floats that are all whole are ids.
        ``label_names`` default to the sorted names, or for ids to "0", "1", ... up to the largest.

        Raises:
            UserError: there are no rows, a text is not a string or is empty, rows differ in their number of texts,
                or a label is missing or is no class.
        """
        rows = text_rows(texts, _COLUMNS)
        if labels is not None and len(labels) != len(rows):
            raise UserError(f"{len(rows)} rows, but {len(labels)} labels")
        ids, names = class_ids(labels, label_names)
        return cls(rows, ids, names, _COLUMNS[len(rows[0])])

    def __len__(self) -> int:
        return len(self.texts)

    def __getitem__(self, index: int) -> Row:
        return Row(self.texts[index], None if self.labels is None else self.labels[index])

    def select(self, rows: Sequence[int]) -> "TextData":
        """The rows of these numbers, in this order."""
        labels = None if self.labels is None else cast(Labels, [self.labels[i] for i in rows])
        repeats = None if self.repeats is None else [self.repeats[i] for i in rows]
        return TextData([self.texts[i] for i in rows], labels, self.label_names, self.columns, self.source, repeats)

    def split(self, fraction: float, seed: int) -> tuple["TextData", "TextData"]:
        """``(rest, part)``: ``part`` has this fraction (0 to 1, exclusive) of the rows, at least one of them.

        Stratified where the labels are classes: each class's share of ``part`` is its share of the whole to within
        one row. Both keep the rows' order. The same rows and seed give the same split.
        """
        rest, part = part_rows(len(self), self._classes, fraction, seed, self.source)
        return self.select(rest), self.select(part)

    def sample(self, n: int, seed: int) -> "TextData":
        """``n`` of the rows, in their order; all of them where there are no more.

        Stratified where the labels are classes, with at least one row of each if ``n`` allows. For one seed, a
        smaller sample is part of a larger one.
        """
        return self.select(sample_rows(len(self), self._classes, n, seed))

    def draw(self, per_class: int, seed: int) -> tuple["TextData", "TextData"]:
        """``(rest, part)``: ``part`` has ``per_class`` rows of each class; both keep the rows' order.

        Raises:
            UserError: a class has fewer rows, or the labels are no classes.
        """
        if self.label_names is None or self.labels is None:
            raise UserError("rows are drawn by class, and these have none", where=self.source)
        order = np.random.default_rng(seed).permutation(len(self))
        classes, chosen = np.asarray(self.labels)[order], np.zeros(len(self), dtype=bool)
        for i, name in enumerate(self.label_names):
            members = order[classes == i]
            if len(members) < per_class:
                raise UserError(
                    f"{per_class:,} rows of each class are drawn, and {name!r} has {len(members):,}", where=self.source
                )
            chosen[members[:per_class]] = True
        return self.select(np.flatnonzero(~chosen).tolist()), self.select(np.flatnonzero(chosen).tolist())

    @property
    def _classes(self) -> list[int] | None:
        return None if self.label_names is None else cast(list[int] | None, self.labels)


@dataclass
class Splits:
    """What `load_splits` gives. A split that the source does not have, or has without labels, is None.

    ``skipped``: bad rows that were left out. ``notes``: what was decided on the way, in sentences for a reader.
    ``read_from``: the columns of the source that hold the texts and the label.
    """

    train: TextData | None
    validation: TextData | None
    test: TextData | None
    task: Task
    skipped: int = 0
    notes: list[str] = field(default_factory=list)
    read_from: Columns | None = None

    def need(self, name: Literal["train", "validation", "test"]) -> TextData:
        """The split of that name; a `UserError` where there is none."""
        data: TextData | None = getattr(self, name)
        if data is None:
            by_split = [f"Files of any names are given by split: {BY_SPLIT}"] if name == "train" else []
            raise UserError(f"there is no {name} split", hint=" ".join([*self.notes, *by_split]) or None)
        return data


class EncodedText(Dataset[dict[str, Any]]):
    """The tokens of every row, made once and not padded.

    ``data``: the rows. ``tokenizer``: a Hugging Face tokenizer. ``max_length``: the most tokens of a row, special
    tokens included; a longer one is cut (a pair at its longer half). The three sentences of a triplet are encoded
    apart, each up to ``max_length``.

    An item is ``{"input_ids": list[int], "index": int}``, with ``token_type_ids`` if the model takes them, ``label``
    (int or float) if the rows have one, and for triplets ``positive`` and ``negative``, each with ids of its own.
    ``lengths``: tokens of each item, all its sentences together. ``collate`` makes a batch of items.

    There are as many items as training sees in an epoch: a row with ``data.repeats[i] == r`` is r items in a row, which
    all have the same ``index`` i in [0, len(data)). A memory bank by ``index`` so holds each row once.
    """

    def __init__(self, data: TextData, tokenizer: "PreTrainedTokenizerBase", max_length: int) -> None:
        self.data = data
        self.max_length = max_length
        self.collate = Collator(tokenizer)
        columns = [[row[i] for row in data.texts] for i in range(len(data.columns))]
        if len(columns) == 3:
            self._views = [self._encode(tokenizer, column) for column in columns]
        else:
            self._views = [self._encode(tokenizer, *columns)]
        lengths = [sum(map(len, ids)) for ids in zip(*(view["input_ids"] for view in self._views), strict=True)]
        self._rows = range(len(data)) if data.repeats is None else np.repeat(np.arange(len(data)), data.repeats)
        self.lengths = lengths if data.repeats is None else [lengths[i] for i in self._rows]

    def _encode(self, tokenizer: "PreTrainedTokenizerBase", *columns: list[str]) -> dict[str, list[list[int]]]:
        types = "token_type_ids" in tokenizer.model_input_names
        tokens = tokenizer(
            *columns,
            truncation=True,
            max_length=self.max_length,
            return_attention_mask=False,
            return_token_type_ids=types,
            verbose=False,
        )
        names = ("input_ids", "token_type_ids") if types else ("input_ids",)
        return {name: tokens[name] for name in names}

    @property
    def labels(self) -> np.ndarray | None:
        """(len(data),) int64 class ids or float32 scores, by ``index``; None without labels."""
        if self.data.labels is None:
            return None
        return np.asarray(self.data.labels, dtype=np.float32 if self.data.label_names is None else np.int64)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        index = int(self._rows[index])
        first, *others = ({name: ids[index] for name, ids in view.items()} for view in self._views)
        item: dict[str, Any] = {**first, "index": index}
        if self.data.labels is not None:
            item["label"] = self.data.labels[index]
        return item | dict(zip(("positive", "negative"), others, strict=False))

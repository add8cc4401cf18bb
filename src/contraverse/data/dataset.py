"""Texts with their labels."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple, cast, overload

import numpy as np

from contraverse.data.columns import is_missing, text_problem
from contraverse.data.splits import OnBadRow, Splits, draw_per_class, part_rows, sample_rows
from contraverse.data.tables import Texts
from contraverse.data.tasks import Task
from contraverse.data.tokens import AUTO
from contraverse.errors import UserError

_MOST_CLASSES = 100_000

Labels = list[int] | list[float] | None


TextColumns = str | Sequence[str] | None
LabelColumn = str | Literal[False] | None

_COLUMNS = {1: ("text",), 2: ("sentence1", "sentence2"), 3: ("anchor", "positive", "negative")}


class Row(NamedTuple):
    """One row: its texts, one for each column, and its label if it has one."""

    texts: tuple[str, ...]
    label: int | float | None


@dataclass(repr=False)
class TextData:
    """Rows of texts, kept as they came.

    ``texts``: for each row one string (a sentence), two (a pair) or three (anchor, positive, negative), under
    ``columns``. ``labels``: class ids in [0, len(label_names)), float scores, or None. ``source``: where they are
    from. ``repeats``: how often training sees each row in an epoch, None for once; its length and its row numbers
    are those of the different rows all the same. ``notes``: what was decided when they were read, in sentences.
    ``cache``: folder of the file of their tokens, "auto" or "none": see `contraverse.data.tokens.tokenize`.
    Made by `from_csv` and its kin, by `load_splits`, or from Python values by `from_rows`.
    """

    unit: ClassVar[str] = "row"

    texts: Sequence[tuple[str, ...]]
    labels: Labels
    label_names: tuple[str, ...] | None
    columns: tuple[str, ...]
    source: str = "memory"
    repeats: list[int] | None = None
    notes: list[str] = field(default_factory=list, compare=False)
    cache: str = field(default=AUTO, compare=False)

    def __post_init__(self) -> None:
        if not isinstance(self.texts, Texts):
            self.texts = Texts(self.texts, len(self.columns))

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

    @classmethod
    def from_csv(
        cls,
        path: str | Path,
        *,
        text: TextColumns = None,
        label: LabelColumn = None,
        label_names: Sequence[str] | None = None,
        task: str | Task | None = None,
        on_bad_row: OnBadRow = "error",
        delimiter: str | None = None,
        encoding: str | None = None,
    ) -> "TextData":
        """Every row of a CSV, TSV, JSON lines, JSON, Parquet or text file, also compressed (.gz, .bz2).

        ``text``: the column of the texts, or the two of a pair, or the three of a triplet; ``label``: the column of
        the classes or scores, False for none. Columns that are not named are found by their usual names, else by what
        they contain; ``notes`` say which were taken. ``label_names``: the classes in the order of their ids, None for
        those of the rows, sorted; give those of the training rows where test rows may lack some. ``task``: a task of
        the registry, such as "mrpc", whose columns and classes are used. ``delimiter`` and ``encoding`` as
        `load_splits` has them.

        Labels are class names, or ids, or scores where they are numbers that are not all whole. A row whose text or
        label is missing or cannot be used is an error that names file, line and reason, or with
        ``on_bad_row="skip"`` is left out. There are no labels where no row has one.

        Raises:
            UserError: the file cannot be read, a column cannot be told, or there are bad rows.
        """
        from contraverse.data.load import load_every_row

        splits = load_every_row(
            path,
            task=task,
            text=text,
            label=label,
            label_names=label_names,
            on_bad_row=on_bad_row,
            delimiter=delimiter,
            encoding=encoding,
        )
        return _only(splits)

    @classmethod
    def from_pandas(
        cls,
        frame: Any,
        *,
        text: TextColumns = None,
        label: LabelColumn = None,
        label_names: Sequence[str] | None = None,
        task: str | Task | None = None,
        on_bad_row: OnBadRow = "error",
    ) -> "TextData":
        """Every row of a pandas data frame; the arguments are those of `from_csv`. Messages count rows from 1."""
        from contraverse.data.load import load_every_row

        if not hasattr(frame, "iloc") or not hasattr(frame, "columns"):
            raise UserError(f"a data frame of pandas is wanted, not a {type(frame).__name__}")
        return _only(
            load_every_row(frame, task=task, text=text, label=label, label_names=label_names, on_bad_row=on_bad_row)
        )

    @classmethod
    def from_list(
        cls,
        rows: Sequence[Mapping[str, Any]],
        *,
        text: TextColumns = None,
        label: LabelColumn = None,
        label_names: Sequence[str] | None = None,
        task: str | Task | None = None,
        on_bad_row: OnBadRow = "error",
    ) -> "TextData":
        """Rows from dicts, such as ``[{"text": "...", "label": "yes"}]``; the arguments are those of `from_csv`."""
        from contraverse.data.load import load_every_row

        if not isinstance(rows, Sequence) or not all(isinstance(row, Mapping) for row in rows):
            raise UserError(
                "a list of dicts is wanted", hint="from_rows(texts, labels) takes lists of texts and labels"
            )
        return _only(
            load_every_row(
                list(rows), task=task, text=text, label=label, label_names=label_names, on_bad_row=on_bad_row
            )
        )

    @overload
    @classmethod
    def from_dataset(
        cls,
        dataset: Mapping[str, Any],
        *,
        text: TextColumns = None,
        label: LabelColumn = None,
        label_names: Sequence[str] | None = None,
        task: str | Task | None = None,
        on_bad_row: OnBadRow = "error",
    ) -> "TextSplits": ...

    @overload
    @classmethod
    def from_dataset(
        cls,
        dataset: Any,
        *,
        text: TextColumns = None,
        label: LabelColumn = None,
        label_names: Sequence[str] | None = None,
        task: str | Task | None = None,
        on_bad_row: OnBadRow = "error",
    ) -> "TextData": ...

    @classmethod
    def from_dataset(
        cls,
        dataset: Any,
        *,
        text: TextColumns = None,
        label: LabelColumn = None,
        label_names: Sequence[str] | None = None,
        task: str | Task | None = None,
        on_bad_row: OnBadRow = "error",
    ) -> "TextData | TextSplits":
        """Every row of a `datasets.Dataset`, or of a `DatasetDict`: its `TextSplits`.

        The arguments are those of `from_csv`. A column of the feature ClassLabel has its names, in the order of its
        ids, as ``label_names``; where every label of a test split is -1 there is no test split.
        """
        from contraverse.data.load import load_every_row

        if not hasattr(dataset, "column_names"):
            raise UserError(f"a Dataset or DatasetDict of datasets is wanted, not a {type(dataset).__name__}")
        splits = load_every_row(
            dataset, task=task, text=text, label=label, label_names=label_names, on_bad_row=on_bad_row
        )
        return splits if isinstance(dataset, Mapping) else _only(splits)

    def __len__(self) -> int:
        return len(self.texts)

    def __repr__(self) -> str:
        labels = "no labels" if self.labels is None else "scores"
        if self.label_names is not None and self.labels is not None:
            labels = f"{len(self.label_names)} classes"
        return f"TextData({len(self)} rows of {', '.join(self.columns)}, {labels}, from {self.source})"

    def __getitem__(self, index: int) -> Row:
        return Row(self.texts[index], None if self.labels is None else self.labels[index])

    def select(self, rows: Sequence[int]) -> "TextData":
        """The rows of these numbers, in this order."""
        labels = None if self.labels is None else cast(Labels, [self.labels[i] for i in rows])
        repeats = None if self.repeats is None else [self.repeats[i] for i in rows]
        texts = Texts((self.texts[i] for i in rows), len(self.columns))
        return replace(self, texts=texts, labels=labels, repeats=repeats, notes=[])

    def split(self, fraction: float, seed: int = 42) -> tuple["TextData", "TextData"]:
        """``(rest, part)``: ``part`` has this fraction (0 to 1, exclusive) of the rows, at least one of them.

        Stratified where the labels are classes: each class's share of ``part`` is its share of the whole to within
        one row. Both keep the rows' order. The same rows and seed give the same split.
        """
        rest, part = part_rows(len(self), self.class_ids, fraction, seed, self.source)
        return self.select(rest), self.select(part)

    def sample(self, n: int, seed: int = 42) -> "TextData":
        """``n`` of the rows, in their order; all of them where there are no more.

        Stratified where the labels are classes, with at least one row of each if ``n`` allows. For one seed, a
        smaller sample is part of a larger one.
        """
        return self.select(sample_rows(len(self), self.class_ids, n, seed))

    def draw(self, per_class: int, seed: int) -> tuple["TextData", "TextData"]:
        """``(rest, part)``: ``part`` has ``per_class`` rows of each class; both keep the rows' order.

        Raises:
            UserError: a class has fewer rows, or the labels are no classes.
        """
        return draw_per_class(self, per_class, seed)

    @property
    def class_ids(self) -> list[int] | None:
        """The labels where they are classes, else None."""
        return None if self.label_names is None else cast(list[int] | None, self.labels)

    @property
    def num_labelled(self) -> int:
        """Number of rows with a label: all or none."""
        return 0 if self.labels is None else len(self)

    @property
    def contents(self) -> np.ndarray:
        """(N,) int64 digests of the rows' texts, equal for equal texts; other in another process."""
        return np.fromiter(map(hash, self.texts), dtype=np.int64, count=len(self))


@dataclass
class TextSplits(Splits[TextData]):
    """Splits of texts, made by `load_splits`."""

    task: Task


def _only(splits: TextSplits) -> TextData:
    return replace(splits.need("train"), notes=splits.notes)


def text_rows(texts: Any, columns: dict[int, tuple[str, ...]]) -> list[tuple[str, ...]]:
    """Rows of one to three texts; ``columns`` names them by their number.

    Raises:
        UserError: there are no rows, one has another number of texts, or a text cannot be used.
    """
    if isinstance(texts, str) or hasattr(texts, "column_names") or (hasattr(texts, "iloc") and np.ndim(texts) != 1):
        hint = "of a table: load_splits(task, table), or from_rows(table['text'], table['label'])"
        raise UserError(f"texts are a list or a column, not a {type(texts).__name__}", hint=hint)
    rows = [tuple(row) if isinstance(row, list | tuple | np.ndarray) else (row,) for row in texts]
    if not rows:
        raise UserError("there are no rows")
    width = len(rows[0])
    if width not in columns:
        raise UserError(f"a row holds one, two or three texts, not {width}", where="row 0")
    for i, row in enumerate(rows):
        problem = next(filter(None, map(text_problem, row, columns[width])), None)
        if len(row) != width or problem is not None:
            why = f": {problem}" if problem else ""
            raise UserError(f"expected {width} non-empty string(s), found {row!r}{why}", where=f"row {i}")
    return rows


def class_ids(labels: Any, names: Sequence[str] | None) -> tuple[Labels, tuple[str, ...] | None]:
    """Ids and names of classes, or scores and None; whole floats are ids, as a column with gaps has them.

    Raises:
        UserError: a label is missing, or is no class; ``row 3`` says which.
    """
    if labels is None:
        return None, tuple(names) if names else None
    values: list[Any] = [_plain(value) for value in (labels.tolist() if hasattr(labels, "tolist") else labels)]
    for i, value in enumerate(values):
        if is_missing(value) or (isinstance(value, str) and not value.strip()):
            raise UserError("the label is missing", where=f"row {i}")
        if isinstance(value, list | tuple | np.ndarray):
            raise UserError(
                "a label is one value, not a row of them", where=f"row {i}", hint="of one-hot rows: argmax(1)"
            )
        if isinstance(value, float) and math.isinf(value):
            raise UserError("a score is not a finite number", where=f"row {i}")
    kinds = {type(value) for value in values}
    if kinds == {str}:
        known = tuple(names) if names else tuple(sorted(set(values)))
        ids = {name: i for i, name in enumerate(known)}
        values = [ids.get(value, value) for value in values]
    elif kinds <= {int, float} and not names and not all(float(value).is_integer() for value in values):
        return [float(value) for value in values], None
    else:
        values = [int(value) if isinstance(value, float) and value.is_integer() else value for value in values]
        whole = [value for value in values if isinstance(value, int)]
        known = tuple(names) if names else tuple(str(i) for i in range(min(max(whole, default=-1) + 1, _MOST_CLASSES)))
    for i, value in enumerate(values):
        if not isinstance(value, int) or not 0 <= value < len(known):
            raise UserError(f"label {value!r} is none of the {len(known)} classes", where=f"row {i}")
    return [int(value) for value in values], known


def _plain(value: Any) -> Any:
    """A number of numpy or torch as Python's."""
    return value.item() if hasattr(value, "item") and getattr(value, "ndim", None) == 0 else value

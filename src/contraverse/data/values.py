"""Texts and labels that come as Python values: lists, arrays, tensors, columns of pandas and of `datasets`."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from contraverse.data.columns import is_missing, text_problem
from contraverse.errors import UserError

_MOST_CLASSES = 100_000

Labels = list[int] | list[float] | None


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

"""From a table's raw values to texts and labels; every row that cannot be used is reported with its number."""

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from contraverse.data.columns import Columns
from contraverse.data.dataset import TextData
from contraverse.data.tables import BadRow, Table
from contraverse.data.tasks import Task
from contraverse.data.values import text_problem
from contraverse.errors import UserError

_INTEGER = re.compile(r"[+-]?\d+")
_WHOLE = re.compile(r"[+-]?\d+\.0+")
_MOST_CLASSES = 1000
_SHOWN = 10


@dataclass
class Rows:
    """The sound rows of one split: their texts, and their class names or scores.

    ``places``: table and row number of each. ``labels`` is None for a split without labels. ``faults``: the rows whose
    texts or labels cannot be used. ``left_out``: how many rows had each of the task's labels that are left out.
    """

    source: str
    texts: list[tuple[str, ...]]
    labels: list[Any] | None
    places: list[tuple[Table, int]]
    faults: list[BadRow]
    left_out: Counter[str] = field(default_factory=Counter)


def read_rows(tables: Sequence[tuple[Table, Columns]], task: Task, *, may_be_unlabelled: bool) -> Rows:
    """Check the texts and labels of the tables of one split.

    With ``may_be_unlabelled`` a split without a label column, or whose every label is -1 or missing (the Hub's marks
    for hidden test labels), is one without labels; otherwise each such row is bad.
    """
    raw = [_raw_labels(table, columns, task) for table, columns in tables]
    hidden = may_be_unlabelled and all(_is_hidden(label) for labels in raw for label in labels)
    labelled = task.labelled and not hidden
    rows = Rows(", ".join(table.where for table, _ in tables), [], [] if labelled else None, [], [])
    for (table, columns), labels in zip(tables, raw, strict=True):
        texts = [table.column(name) for name in columns.texts]
        for number, found, *row in zip(table.rows, labels, *texts, strict=True):
            label, problem = found, next(filter(None, map(text_problem, row, columns.texts)), None)
            if labelled and problem is None:
                label, problem = _score(found) if task.kind == "similarity" else _class_name(found)
            if problem is not None:
                rows.faults.append(BadRow(table.where, table.unit, number, problem))
                continue
            rows.texts.append(tuple(row))
            rows.places.append((table, number))
            if rows.labels is not None:
                rows.labels.append(label)
    return rows


def _is_hidden(label: Any) -> bool:
    return label in (None, "", -1, "-1", "-1.0", "hidden")


def _raw_labels(table: Table, columns: Columns, task: Task) -> Sequence[Any]:
    """The label column; integers become the class names that the source declares, unless the task knows none of them.

    Where it knows some, the others are labels like any other: unknown, or left out.
    """
    if columns.label is None:
        return [None] * len(table.rows)
    labels, names = table.column(columns.label), table.classes.get(columns.label)
    if not names or (task.labels and not {*map(str.casefold, names)} & {*_known(task)}):
        return labels
    return [names[label] if isinstance(label, int) and 0 <= label < len(names) else label for label in labels]


def _known(task: Task) -> dict[str, int]:
    """The ids of the task's own classes by their names and aliases, case-folded."""
    ids = {name.casefold(): i for i, name in enumerate(task.labels or ())}
    # A task with the classes of some model in place of its own may lack one that an alias is for.
    aliases = {alias.casefold(): ids.get(name.casefold()) for alias, name in task.aliases.items()}
    return {alias: i for alias, i in aliases.items() if i is not None} | ids


def _score(label: Any) -> tuple[float, str | None]:
    if label is None or label == "":
        return 0.0, "the score is missing"
    try:
        if isinstance(label, bool):
            raise ValueError
        score = float(label)
    except (TypeError, ValueError):
        return 0.0, f"the score {_short(label)} is not a number"
    return score, None if math.isfinite(score) else f"the score {_short(label)} is not finite"


def _class_name(label: Any) -> tuple[str, str | None]:
    """The label as a class name: ``1``, ``1.0``, ``"1"`` and ``"1.0"`` are one class."""
    if isinstance(label, str):
        label = label.strip()
        if _WHOLE.fullmatch(label):
            label = label.split(".")[0]
        if problem := (text_problem(label, "label") if label else "the label is missing"):
            return "", problem
        return label, None
    if label is None or (isinstance(label, float) and math.isnan(label)):
        return "", "the label is missing"
    if isinstance(label, float) and not label.is_integer():
        return "", f"the label {label!r} is not a class"
    if isinstance(label, int | float):
        return str(int(label)), None
    return "", f"the label is a {type(label).__name__}, not a class"


def infer_classes(rows: Rows) -> tuple[str, ...]:
    """The distinct labels, sorted: as numbers where they all are, else as text.

    Raises:
        UserError: so many rows have a label of their own that the labels are no classes.
    """
    found = set(rows.labels or ())
    if len(found) > _MOST_CLASSES or (len(found) > 20 and 2 * len(found) > len(rows.texts)):
        some = ", ".join(map(_short, sorted(found)[:3]))
        raise UserError(
            f"the label column has {len(found)} different values in {len(rows.texts)} rows ({some}, ...): no classes",
            where=rows.source,
            hint="Name the column of the classes with --label.",
        )
    numeric = all(map(_INTEGER.fullmatch, found))
    return tuple(sorted(found, key=int) if numeric else sorted(found))


def to_data(rows: Rows, task: Task, names: tuple[str, ...] | None) -> TextData:
    """The rows with their labels as ids of ``names``; a row whose label is none of them becomes a fault.

    A task's own classes match by name or alias regardless of case, and by id unless numbers are their names or are not
    the task's way to call them; classes that were inferred match as they are. Rows with a label that the task leaves
    out are counted.
    """
    if rows.labels is None or names is None:
        return TextData(rows.texts, rows.labels, None, task.columns, rows.source)
    ids = {name: i for i, name in enumerate(names)}
    if task.labels:
        ids = _known(task) | ids
        if task.numbered and not any(map(_INTEGER.fullmatch, names)):
            ids |= {str(i): i for i in range(len(names))}
    left_out = {name.casefold(): name for name in task.left_out}
    texts, labels = [], []
    for text, label, (table, number) in zip(rows.texts, rows.labels, rows.places, strict=True):
        known = ids.get(label, ids.get(label.casefold()) if task.labels else None)
        if known is None and label.casefold() in left_out:
            rows.left_out[left_out[label.casefold()]] += 1
        elif known is None:
            shown = ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
            problem = f"the label {_short(label)} is unknown (known: {shown})"
            if not task.numbered and _INTEGER.fullmatch(label):
                problem += "; numbers are classes for --task text alone"
            rows.faults.append(BadRow(table.where, table.unit, number, problem))
        else:
            texts.append(text)
            labels.append(known)
    return TextData(texts, labels, names, task.columns, rows.source)


def _short(value: Any) -> str:
    said = repr(value)
    return said if len(said) <= 40 else f"{said[:37]}..."

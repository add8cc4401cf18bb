"""From one source to checked rows: a Hub data set, a file, a folder, or tables, by split.

Every row that cannot be used is reported with its number.
"""

import math
import re
from array import array
from bisect import bisect_right
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from contraverse.data.columns import HIDDEN, NOT_UTF8, Columns, arrange, find_columns, text_problem
from contraverse.data.dataset import TextData
from contraverse.data.files import AS_IT_IS, Form, is_local, read_table
from contraverse.data.sources import find_files, is_table, load_hub, read_in_memory
from contraverse.data.splits import SPLITS, OnBadRow, SplitName
from contraverse.data.tables import BadRow, Strings, Table, Texts
from contraverse.data.tasks import Task
from contraverse.errors import UserError

MEND = "Mend them, or leave them out with --on-bad-row skip."
_SHOWN = 5
_SHOWN_CLASSES = 10
_MOST_CLASSES = 1000
_INTEGER = re.compile(r"[+-]?\d+")
_WHOLE = re.compile(r"[+-]?\d+\.0+")

Files = Mapping[str, str] | Mapping[str, Path]


@dataclass(frozen=True)
class Read:
    """The rows of each split that the source has with labels, and what a reader should know of them."""

    data: dict[SplitName, TextData]
    skipped: int
    notes: list[str]
    columns: Columns | None = None
    """Columns that were read, of the first table."""


def read_source(
    source: str | Path | Files | None,
    task: Task,
    *,
    text: Sequence[str] | None,
    label: str | None,
    on_bad_row: OnBadRow,
    names: tuple[str, ...] | None = None,
    only: Collection[SplitName] = SPLITS,
    trained: Columns | None = None,
    form: Form = AS_IT_IS,
) -> Read:
    """Read and check the splits of one source; the arguments are those of `load_splits`.

    ``names``: the classes where the task has none of its own, None to take those of the first split. ``only``: splits
    to read, where there are others; what a split of them all lacks is for the caller to refuse.

    Raises:
        UserError: as `load_splits`.
    """
    tables, notes = _open(source, task, form)
    tables = {split: part for split, part in tables.items() if split in only}
    return read_tables(tables, notes, task, text=text, label=label, on_bad_row=on_bad_row, names=names, trained=trained)


def read_tables(
    tables: Mapping[SplitName, Sequence[Table]],
    notes: list[str],
    task: Task,
    *,
    text: Sequence[str] | None,
    label: str | None,
    on_bad_row: OnBadRow,
    names: tuple[str, ...] | None = None,
    trained: Columns | None = None,
) -> Read:
    """Check the rows of tables; the arguments are those of `read_source`, and ``notes`` go before its own."""
    if text is None:
        tables = {split: [arrange(table, task) for table in part] for split, part in tables.items()}
    columns = _columns(tables, task, text, label, trained, notes)
    data: dict[SplitName, TextData] = {}
    names = task.labels or names
    bad_rows = [bad for table in _all(tables) for bad in table.faults]
    for split, part in columns.items():
        rows, names = _read_split(part, task, names, bad_rows, notes, may_be_unlabelled=split == "test")
        if rows is not None:
            data[split] = rows
    bad_rows = _in_order(tables, bad_rows)
    if bad_rows and on_bad_row == "error":
        raise _refusal(bad_rows, _all(tables))
    notes += _notes_on_rows(tables, bad_rows)
    for split in tables:
        if split not in columns or (split in data and not len(data[split])):
            raise UserError("no usable row is left", where=tables[split][0].where)
    if tables and not data:
        raise UserError("there are no labelled rows", where=_where(next(iter(columns.values()))))
    first = next((used for part in columns.values() for _, used in part), None)
    return Read(data, len(bad_rows), notes, first)


def _where(tables: Sequence[tuple[Table, Columns]]) -> str:
    return ", ".join(table.where for table, _ in tables)


def _open(source: str | Path | Files | None, task: Task, form: Form) -> tuple[dict[SplitName, list[Table]], list[str]]:
    """The tables of each split, and notes."""
    notes: list[str] = []
    if source is None or (isinstance(source, str) and not is_local(source)):
        return load_hub(source, task), notes
    if isinstance(source, str | Path):
        path = Path(source).expanduser()
        files: dict[SplitName, list[Path]] = {"train": [path]}
        if path.is_dir():
            files, notes = find_files(path, task.splits)
    elif is_table(source):
        return {"train": [read_in_memory(source, "the table")]}, notes
    elif source and all(map(is_table, source.values())):
        return {name: [read_in_memory(source[name], f"the {name} table")] for name in SPLITS if name in source}, notes
    else:
        files = {name: [Path(source[name]).expanduser()] for name in SPLITS if name in source}
    tables = {name: [read_table(path, task.headerless, form) for path in paths] for name, paths in files.items()}
    return tables, [*notes, *(note for table in _all(tables) for note in table.notes)]


def _all(tables: Mapping[SplitName, Sequence[Table]]) -> list[Table]:
    return [table for part in tables.values() for table in part]


def _columns(
    tables: Mapping[SplitName, Sequence[Table]],
    task: Task,
    text: Sequence[str] | None,
    label: str | None,
    trained: Columns | None,
    notes: list[str],
) -> dict[SplitName, list[tuple[Table, Columns]]]:
    """Each table that has rows with its columns: those of the first one wherever a table has them too."""
    columns_of: dict[SplitName, list[tuple[Table, Columns]]] = {}
    first: Columns | None = None
    for split, part in tables.items():
        if not any(table.rows or table.faults for table in part):
            raise UserError("has no rows", where=part[0].where, hint="Expected at least one row of data.")
        for table in part:
            if not table.rows:
                continue
            label_needed = split != "test" or first is None
            columns = first and _same_columns(table, first, label_needed=label_needed)
            if columns is None:
                named_label = label if label_needed or label in table.names else None
                columns, note = find_columns(
                    table, task, text, named_label, label_needed=label_needed, trained=first or trained
                )
                notes += [note] if note else []
            columns_of.setdefault(split, []).append((table, columns))
            first = first or columns
    return columns_of


def _same_columns(table: Table, columns: Columns, *, label_needed: bool) -> Columns | None:
    if not set(columns.texts) <= set(table.names):
        return None
    if columns.label is None or columns.label in table.names:
        return columns
    return None if label_needed else Columns(columns.texts, None)


def _read_split(
    tables: Sequence[tuple[Table, Columns]],
    task: Task,
    names: tuple[str, ...] | None,
    bad_rows: list[BadRow],
    notes: list[str],
    *,
    may_be_unlabelled: bool,
) -> tuple[TextData | None, tuple[str, ...] | None]:
    """The sound rows of one split, and the names of the classes: ``names``, or those of these rows where it is None.

    With ``may_be_unlabelled`` a split without a label column, or whose every label is -1 or missing (the Hub's marks
    for hidden test labels), is none: the result is None, and a note says why. Otherwise each such row is bad. Rows that
    cannot be used are appended to ``bad_rows``; those with a label that the task leaves out are counted in a note.
    """
    source = _where(tables)
    columns_of_labels = [_raw_labels(table, columns, task) for table, columns in tables]
    hidden = may_be_unlabelled and all(label in HIDDEN for labels in columns_of_labels for label in labels)
    labelled = task.labelled and not hidden
    width = len(tables[0][1].texts)
    columns_of_texts, labels, numbers = [Strings() for _ in range(width)], list[Any](), array("q")
    starts = list[int]()  # of the rows of each table
    spellings: dict[str, str] = {}  # one object for equal names
    before = len(bad_rows)
    for (table, columns), raw_labels in zip(tables, columns_of_labels, strict=True):
        raw_texts = [table.column(name) for name in columns.texts]
        starts.append(len(labels))
        for number, label, *row in zip(table.rows, raw_labels, *raw_texts, strict=True):
            problem = next(filter(None, map(text_problem, row, columns.texts)), None)
            if labelled and problem is None:
                label, problem = _score(label) if task.kind == "similarity" else _class_name(label)
            if problem is not None:
                bad_rows.append(BadRow(table.where, table.unit, number, problem))
                continue
            for column, text in zip(columns_of_texts, row, strict=True):
                column.append(text)
            labels.append(spellings.setdefault(label, label) if isinstance(label, str) else label)
            numbers.append(number)
    texts = Texts.of(columns_of_texts)
    if not labelled:
        if task.labelled:
            notes.append(f"{source}: has no labels, so it is not used as a test split")
            return None, names
        return TextData(texts, None, None, task.columns, source), names
    if task.kind == "similarity":
        return TextData(texts, labels, None, task.columns, source), names
    names = names or _infer_classes(labels, source)
    ids = _ids(task, names)
    left_out, kept = Counter[str](), list[int]()
    for i, label in enumerate(labels):
        known = ids.get(label, ids.get(label.casefold()) if task.labels else None)
        if known is not None:
            labels[i] = known
            kept.append(i)
        elif (spelled := _left_out(task, label)) is not None:
            left_out[spelled] += 1
        else:
            table = tables[bisect_right(starts, i) - 1][0]
            bad_rows.append(BadRow(table.where, table.unit, numbers[i], _unknown(label, task, names)))
    if left_out:
        counted = ", ".join(f"{count} {label!r}" for label, count in left_out.items())
        notes.append(f"{source}: {sum(left_out.values())} rows left out for their label ({counted})")
    if not kept and left_out and len(bad_rows) == before:
        return None, names
    data = TextData(texts, labels, names, task.columns, source)
    return data if len(kept) == len(texts) else data.select(kept), names


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


def _infer_classes(labels: Sequence[str], source: str) -> tuple[str, ...]:
    """The distinct labels, sorted: as numbers where they all are, else as text.

    Raises:
        UserError: so many rows have a label of their own that the labels are no classes.
    """
    distinct = set(labels)
    if len(distinct) > _MOST_CLASSES or (len(distinct) > 20 and 2 * len(distinct) > len(labels)):
        some = ", ".join(map(_short, sorted(distinct)[:3]))
        raise UserError(
            f"the label column has {len(distinct)} different values in {len(labels)} rows ({some}, ...): no classes",
            where=source,
            hint="Name the column of the classes with --label.",
        )
    numeric = all(map(_INTEGER.fullmatch, distinct))
    return tuple(sorted(distinct, key=int) if numeric else sorted(distinct))


def _ids(task: Task, names: tuple[str, ...]) -> dict[str, int]:
    """The ids of ``names`` by all that a label may be called.

    A task's own classes match by name or alias regardless of case, and by id unless numbers are their names or are not
    the task's way to call them; classes that were inferred match as they are.
    """
    ids = {name: i for i, name in enumerate(names)}
    if task.labels:
        ids = _known(task) | ids
        if task.numbered and not any(map(_INTEGER.fullmatch, names)):
            ids |= {str(i): i for i in range(len(names))}
    return ids


def _left_out(task: Task, label: str) -> str | None:
    """The label as the task spells it where its rows are left out; None for any other."""
    return next((name for name in task.left_out if name.casefold() == label.casefold()), None)


def _unknown(label: str, task: Task, names: tuple[str, ...]) -> str:
    shown = ", ".join(names[:_SHOWN_CLASSES]) + (", ..." if len(names) > _SHOWN_CLASSES else "")
    problem = f"the label {_short(label)} is unknown (known: {shown})"
    if not task.numbered and _INTEGER.fullmatch(label):
        problem += "; numbers are classes for --task text alone"
    return problem


def _short(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) <= 40 else f"{shown[:37]}..."


def _in_order(tables: Mapping[SplitName, Sequence[Table]], bad_rows: Sequence[BadRow]) -> list[BadRow]:
    """``bad_rows`` as a reader of the files meets them."""
    place = {table.where: i for i, table in enumerate(_all(tables))}
    return sorted(bad_rows, key=lambda bad: (place[bad.where], bad.row))


def _refusal(bad_rows: Sequence[BadRow], tables: Sequence[Table]) -> UserError:
    total = sum(len(table.rows) + len(table.faults) for table in tables)
    listed = [f"  {bad.where}, {bad.unit} {bad.row}: {bad.problem}" for bad in bad_rows[:_SHOWN]]
    if len(bad_rows) > _SHOWN:
        listed.append(f"  and {len(bad_rows) - _SHOWN} more")
    hint = MEND
    foreign = {bad.where for bad in bad_rows if NOT_UTF8 in bad.problem}
    hint += "".join(f" {table.hint}" for table in tables if table.where in foreign and table.hint)
    return UserError("\n".join([f"{len(bad_rows)} of {total} rows cannot be used:", *listed]), hint=hint)


def _notes_on_rows(tables: Mapping[SplitName, Sequence[Table]], bad_rows: Sequence[BadRow]) -> list[str]:
    notes = [f"{table.where}: {table.blank} blank lines passed over" for table in _all(tables) if table.blank]
    for where, count in Counter(bad.where for bad in bad_rows).items():
        some = [bad for bad in bad_rows if bad.where == where][:_SHOWN]
        listed = "; ".join(f"{bad.unit} {bad.row} {bad.problem}" for bad in some)
        notes.append(f"{where}: {count} bad rows left out ({listed}{'; ...' if count > len(some) else ''})")
    return notes

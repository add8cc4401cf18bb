"""Several sources as one: each with its own task, columns and weight, all with the same classes by name.

Written as a list, the training rows of its sources are mixed; by split, each split is one source or a list of them::

    data:
      source:
        train: [{task: snli}, {task: anli_a1, weight: 10}, {task: pair, source: mine.csv, weight: .5}]
        validation: {task: anli}
        test: {task: anli}

A source is a file or folder, a Hub id, or has these keys, all of which may be left out:

- ``task``: whose columns and labels it has; the run's.
- ``source``: a file (all of its rows are used), a folder, or a Hub id; the task's own Hub data set.
- ``split``: which of its splits the rows are from, one or a list; the split that they are for.
- ``weight``: of training rows, above 0; 1. In an epoch each row is seen ``w`` times where that is an integer, as ANLI's
  official weights are. Of a fraction, the whole part is seen by every row and what is over by a stratified sample of
  that share, drawn once by ``data.seed``: at 2.25 every row is seen twice and a quarter of them a third time.
- ``text`` and ``label``: columns.

A row that is seen often is one row all the same, with one number (`TextData.repeats`, `EncodedText`).

Rewritten texts that fooled a model can be added to the training rows: `with_adversaries`.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, cast

from contraverse.data.columns import Columns
from contraverse.data.dataset import Labels, TextData, TextSplits
from contraverse.data.files import AS_IT_IS, Form, extension, read_table
from contraverse.data.reading import Read, read_source
from contraverse.data.sources import is_table
from contraverse.data.splits import SPLITS, OnBadRow, SplitName, sample_rows
from contraverse.data.tasks import TASKS, Task
from contraverse.errors import UserError, unknown

_SHOWN = 5


@dataclass(frozen=True)
class Part:
    """One source of a mixture; ``where`` names it in messages, the rest is as in the module's description."""

    where: str
    split: tuple[SplitName, ...]
    task: str | None = None
    source: str | Path | None = None
    weight: float = 1.0
    text: tuple[str, ...] | None = None
    label: str | None = None


_KEYS = [field.name for field in fields(Part) if field.name != "where"]


def find_parts(source: Any) -> dict[SplitName, list[Part]] | None:
    """The parts that a source is mixed of, by the split that they are for; None for a single source.

    Raises:
        UserError: a key or split is unknown, or a value is of the wrong kind; ``data.source[1]`` says which.
    """
    where = "data.source"
    if source is None or isinstance(source, str | Path) or is_table(source):
        return None
    if isinstance(source, Sequence):
        return {"train": _parts(source, "train", where)}
    if not isinstance(source, Mapping):
        raise UserError(f"a source is a path, a Hub id, files by split or a list, not {source!r}", where=where)
    if not source or not set(source) <= set(SPLITS):
        named = ", ".join(map(str, source)) or "none at all"
        hint = (
            "A source with settings of its own is one of a list: [{task: snli}]" if set(source) & set(_KEYS) else None
        )
        raise UserError(f"files are named as train, validation and test, not {named}", where=where, hint=hint)
    if all(isinstance(part, str | Path) for part in source.values()) or all(map(is_table, source.values())):
        return None
    parts = {}
    for split in SPLITS:
        if split in source:
            of_split = source[split]
            listed = of_split if isinstance(of_split, Sequence) and not isinstance(of_split, str) else [of_split]
            parts[split] = _parts(listed, split, f"{where}.{split}")
    return parts


def _parts(sources: Sequence[Any], split: SplitName, where: str) -> list[Part]:
    if not sources:
        raise UserError("the list of sources is empty", where=where)
    return [_part(source, split, f"{where}[{i}]") for i, source in enumerate(sources)]


def _part(source: Any, split: SplitName, where: str) -> Part:
    if isinstance(source, str | Path):
        return Part(where, (split,), source=source)
    if not isinstance(source, Mapping):
        raise UserError(f"a source is a path, a Hub id or settings, not {source!r}", where=where)
    for name in source:
        if name not in _KEYS:
            raise unknown("setting of a source", str(name), _KEYS, where=where)
    values = {name: value for name, value in source.items() if value is not None}
    for name in ("task", "label"):
        if not isinstance(values.get(name, ""), str):
            raise UserError(f"{name} is a name, not {values[name]!r}", where=where)
    if not isinstance(values.get("source", ""), str | Path):
        raise UserError(f"source is a path or a Hub id, not {values['source']!r}", where=where)
    if (task := values.get("task")) is not None and task not in TASKS:
        raise unknown("task", task, TASKS, where=where)
    splits = _names(values.pop("split", split), "split", where)
    if not splits or not set(splits) <= set(SPLITS):
        raise UserError(f"split is train, validation or test, not {', '.join(splits) or 'none'}", where=where)
    weight = values.pop("weight", 1.0)
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 < weight < math.inf:
        raise UserError(f"a weight is a number above 0, not {weight!r}", where=where)
    if split != "train" and weight != 1:
        raise UserError("a weight is for training rows: those that are measured are measured once", where=where)
    if "text" in values:
        values["text"] = _names(values["text"], "text", where)
    return Part(where, cast(tuple[SplitName, ...], splits), weight=float(weight), **values)


def _names(value: Any, what: str, where: str) -> tuple[str, ...]:
    names = (value,) if isinstance(value, str) else tuple(value) if isinstance(value, Sequence) else ()
    if not names or not all(isinstance(name, str) for name in names):
        raise UserError(f"{what} is a name or a list of names, not {value!r}", where=where)
    return names


def read_parts(
    parts: Mapping[SplitName, Sequence[Part]],
    task: Task,
    *,
    text: Sequence[str] | None,
    label: str | None,
    seed: int,
    on_bad_row: OnBadRow,
    form: Form = AS_IT_IS,
) -> Read:
    """Read and join the parts of each split; ``text`` and ``label`` are for parts of the run's task that name none.

    The classes are the task's, or those of the first part where it has none.

    Raises:
        UserError: a part cannot be read, has not the split that is wanted, or has other classes or another number
            of texts than the task.
    """
    names, skipped, notes = task.labels, 0, list[str]()
    data: dict[SplitName, TextData] = {}
    columns: Columns | None = None
    for split, listed in parts.items():
        joined: list[TextData] = []
        for part in listed:
            own = TASKS[part.task] if part.task not in (None, task.name) else task
            if (own.kind, len(own.columns)) != (task.kind, len(task.columns)):
                raise UserError(f"task {own.name!r} has other rows than {task.name!r}", where=part.where)
            read = read_source(
                _one_file(part),
                own,
                text=part.text or (text if own is task else None),
                label=part.label or (label if own is task else None),
                on_bad_row=on_bad_row,
                names=names,
                only=part.split,
                form=form,
            )
            skipped += read.skipped
            notes += read.notes
            columns = columns or (read.columns if own is task else None)
            for wanted in part.split:
                if wanted not in read.data:
                    raise UserError(f"it has no labelled {wanted} rows", where=_said(part))
                rows = read.data[wanted]
                names = names or rows.label_names
                joined.append(_weighted(_renamed(rows, names, _said(part)), part.weight, seed))
                if part.weight != 1:
                    seen = sum(joined[-1].repeats or ())
                    notes.append(f"{rows.source}: weight {part.weight:g}, {len(rows)} rows are seen {seen} times")
        data[split] = _joined(joined, task)
    return Read(data, skipped, notes, columns)


def _one_file(part: Part) -> str | Path | dict[str, Path] | None:
    """The source of a part; all rows of a single file are of the split that the part is for."""
    if part.source is None or not Path(part.source).expanduser().is_file():
        return part.source
    if len(part.split) > 1:
        raise UserError("one file is one split", where=_said(part))
    return {part.split[0]: Path(part.source)}


def _said(part: Part) -> str:
    return f"{part.where} ({part.source or part.task or 'on the Hub'})"


def _renamed(rows: TextData, names: tuple[str, ...] | None, where: str) -> TextData:
    """``rows`` with the ids that their classes, by name and regardless of case, have in ``names``."""
    if rows.label_names is None or names is None or rows.label_names == names:
        return rows
    ids = {name.casefold(): i for i, name in enumerate(names)}
    own = [name.casefold() for name in rows.label_names]
    if set(own) != set(ids):
        raise UserError(f"its classes are {_listed(rows.label_names)}, and not {_listed(names)}", where=where)
    labels = [ids[own[int(label)]] for label in rows.labels or ()]
    return replace(rows, labels=labels, label_names=names)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:10]) + (", ..." if len(names) > 10 else "")


def _weighted(rows: TextData, weight: float, seed: int) -> TextData:
    whole, over = divmod(weight, 1)
    more = round(len(rows) * over)
    if whole == 0:
        return rows.sample(max(1, more), seed)
    repeats = [int(whole)] * len(rows)
    if more:
        for number in sample_rows(len(rows), rows.class_ids, more, seed):
            repeats[number] += 1
    return replace(rows, repeats=repeats)


def _joined(parts: Sequence[TextData], task: Task) -> TextData:
    labels: list[Any] | None = None
    if all(part.labels is not None for part in parts):
        labels = [label for part in parts for label in part.labels or ()]
    repeats = [count for part in parts for count in part.repeats or [1] * len(part)]
    return TextData(
        texts=[row for part in parts for row in part.texts],
        labels=cast(Labels, labels),
        label_names=parts[0].label_names,
        columns=task.columns,
        source=", ".join(dict.fromkeys(part.source for part in parts)),
        repeats=None if set(repeats) == {1} else repeats,
    )


def with_adversaries(splits: TextSplits, file: Path) -> tuple[TextData, str]:
    """The training rows with those of ``file`` after them, and a note that counts what was added.

    ``file``: JSON lines, as ``contraverse adversaries`` writes them. ``rewritten`` is the text, or a list of the texts
    of a row; ``label`` is the name of its class, or the class's id as a number. Where ``original`` says what the text
    was rewritten from, a row that came from a validation or test row is left out and counted: training on it would be
    training on what is measured.

    Raises:
        UserError: the training rows have no classes; the file cannot be read, is empty or of another kind, a row of
            it cannot be used, or every row came from a validation or test row.
    """
    train, where = splits.train, str(file)
    if train is None or train.label_names is None or train.labels is None:
        raise UserError("adversaries are added to training rows with classes, and these have none", where=where)
    if file.exists() and extension(file) not in (".jsonl", ".ndjson"):
        raise UserError("adversaries are JSON lines: the file ends in .jsonl", where=where)
    table = read_table(file)
    absent = [name for name in ("rewritten", "label") if name not in table.names]
    if absent and (table.rows or not table.faults):
        what = f"has no field {' and no field '.join(map(repr, absent))}" if table.rows else "has no rows"
        raise UserError(what, where=where, hint="contraverse adversaries MODEL DATA --output FILE.jsonl writes one.")
    measured = {row for data in (splits.validation, splits.test) if data for row in data.texts}
    texts, labels, left_out = list[tuple[str, ...]](), list[int](), 0
    bad_rows = [f"line {bad.row} {bad.problem}" for bad in table.faults]
    columns = [table.column(name) for name in ("rewritten", "label", "original")]
    for line, rewritten, label, original in zip(table.rows, *columns, strict=True):
        row, known = _texts(rewritten, len(train.columns)), _class(label, train.label_names)
        if row is None or known is None:
            what = f"'rewritten' is {rewritten!r}" if row is None else f"the label {label!r} is unknown"
            bad_rows.append(f"line {line}: {what[:120]}")
        elif _texts(original, len(train.columns)) in measured:
            left_out += 1
        else:
            texts.append(row)
            labels.append(known)
    if bad_rows:
        listed = "\n".join(f"  {bad}" for bad in bad_rows[:_SHOWN])
        classes = ", ".join(train.label_names[:10])
        hint = f"Wanted: 'rewritten', {len(train.columns)} text(s) that are not empty, and 'label', one of {classes}."
        raise UserError(f"{len(bad_rows)} rows cannot be used:\n{listed}", where=where, hint=hint)
    counted = f", {left_out} left out that were rewritten from validation or test rows" if left_out else ""
    if not texts:
        raise UserError(f"no row can be added{counted}", where=where, hint="Rewrite training rows instead.")
    added = replace(
        train,
        texts=[*train.texts, *texts],
        labels=cast(Labels, [*train.labels, *labels]),
        repeats=None if train.repeats is None else train.repeats + [1] * len(texts),
    )
    return added, f"{where}: {len(texts)} adversaries added to {len(train)} training rows{counted}"


def _texts(value: Any, width: int) -> tuple[str, ...] | None:
    row = (value,) if isinstance(value, str) else tuple(value) if isinstance(value, list) else ()
    usable = len(row) == width and all(isinstance(text, str) and text.strip() for text in row)
    return row if usable else None


def _class(label: Any, names: tuple[str, ...]) -> int | None:
    if isinstance(label, str):
        return names.index(label) if label in names else None
    is_id = isinstance(label, int) and not isinstance(label, bool)
    return label if is_id and 0 <= label < len(names) else None

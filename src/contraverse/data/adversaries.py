"""Rewritten texts that fooled a model, as further training rows."""

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from contraverse.data.dataset import Splits, TextData
from contraverse.data.formats import extension, read_table
from contraverse.data.values import Labels
from contraverse.errors import UserError

_SHOWN = 5


def with_adversaries(splits: Splits, file: Path) -> tuple[TextData, str]:
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
    held = {row for data in (splits.validation, splits.test) if data for row in data.texts}
    texts, labels, left_out = list[tuple[str, ...]](), list[int](), 0
    faults = [f"line {fault.row} {fault.problem}" for fault in table.faults]
    columns = [table.column(name) for name in ("rewritten", "label", "original")]
    for line, rewritten, label, original in zip(table.rows, *columns, strict=True):
        row, known = _texts(rewritten, len(train.columns)), _class(label, train.label_names)
        if row is None or known is None:
            what = f"'rewritten' is {rewritten!r}" if row is None else f"the label {label!r} is unknown"
            faults.append(f"line {line}: {what[:120]}")
        elif _texts(original, len(train.columns)) in held:
            left_out += 1
        else:
            texts.append(row)
            labels.append(known)
    if faults:
        listed = "\n".join(f"  {fault}" for fault in faults[:_SHOWN])
        classes = ", ".join(train.label_names[:10])
        hint = f"Wanted: 'rewritten', {len(train.columns)} text(s) that are not empty, and 'label', one of {classes}."
        raise UserError(f"{len(faults)} rows cannot be used:\n{listed}", where=where, hint=hint)
    said = f", {left_out} left out that were rewritten from validation or test rows" if left_out else ""
    if not texts:
        raise UserError(f"no row can be added{said}", where=where, hint="Rewrite training rows instead.")
    added = replace(
        train,
        texts=train.texts + texts,
        labels=cast(Labels, [*train.labels, *labels]),
        repeats=None if train.repeats is None else train.repeats + [1] * len(texts),
    )
    return added, f"{where}: {len(texts)} adversaries added to {len(train)} training rows{said}"


def _texts(value: Any, width: int) -> tuple[str, ...] | None:
    row = (value,) if isinstance(value, str) else tuple(value) if isinstance(value, list) else ()
    usable = len(row) == width and all(isinstance(text, str) and text.strip() for text in row)
    return row if usable else None


def _class(label: Any, names: tuple[str, ...]) -> int | None:
    if isinstance(label, str):
        return names.index(label) if label in names else None
    is_id = isinstance(label, int) and not isinstance(label, bool)
    return label if is_id and 0 <= label < len(names) else None

"""`load_splits`: from a Hub id, a file or a folder to checked training, validation and test rows."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from contraverse.data.columns import Columns, find_columns
from contraverse.data.dataset import Splits, TextData
from contraverse.data.folder import SPLITS, SplitName, find_files
from contraverse.data.formats import EXTENSIONS, extension, read_table
from contraverse.data.hub import is_hub_id, load_hub
from contraverse.data.rows import NOT_UTF8, Rows, infer_classes, read_rows, to_data
from contraverse.data.tables import Fault, Table
from contraverse.data.tasks import Task, get_task
from contraverse.errors import UserError

_SHOWN = 5

Source = str | Path | Mapping[str, str] | Mapping[str, Path] | None


def load_splits(
    task: str | Task,
    source: Source,
    *,
    text: str | Sequence[str] | None = None,
    label: str | None = None,
    seed: int = 42,
    validation_fraction: float = 0.1,
    train_rows: int | None = None,
    on_bad_row: Literal["error", "skip"] = "error",
) -> Splits:
    """Load a task's data.

    ``source``: a file (the training rows), a folder (files called train, validation or dev, and test; the rule is
    in `find_files`), ``{"train": file, "validation": file, "test": file}``, a Hub id (``owner/name`` or
    ``owner/name:configuration``), or None for the task's own Hub data set. ``text`` and ``label`` name columns; what
    is not named is found as `find_columns` says.

    Without a validation split, ``validation_fraction`` of the training rows (0 to 1; 0 for none) becomes one, cut by
    ``seed`` and stratified; never test rows. Tasks without labels have nothing to validate on, and none is cut. A
    missing test split stays missing. A test split without labels (no column, or all -1) is not used. ``train_rows``
    keeps that many training rows, a stratified sample by ``seed``, after the cut: the validation rows do not depend
    on it.

    A bad row (a text or label that is missing, empty, of the wrong type, unknown, not UTF-8, holds NUL; a ragged or
    malformed line) is an error that lists the first of them, or with ``on_bad_row="skip"`` is left out and counted.
    "NA", "None" and "null" in a CSV are text. Blank lines are no rows.

    Raises:
        UserError: the source cannot be found or read, a column cannot be told, there are bad rows, a split is empty,
            or the training rows are of one class.
    """
    task = get_task(task) if isinstance(task, str) else task
    _check_arguments(validation_fraction, train_rows, on_bad_row)
    tables, notes = _open(source, task)
    columns = _columns(tables, task, [text] if isinstance(text, str) else text, label, notes)
    rows = {split: read_rows(part, task, may_be_unlabelled=split == "test") for split, part in columns.items()}
    data = _to_data(rows, task, notes)
    faults = _in_order(tables, [fault for part in rows.values() for fault in part.faults])
    if faults and on_bad_row == "error":
        raise _bad_rows(faults, sum(len(table.rows) + len(table.faults) for table in _all(tables)))
    notes += _notes_on_rows(tables, faults)
    for split in tables:
        if split not in rows or (split in data and not len(data[split])):
            raise UserError("no usable row is left", where=tables[split][0].where)
    if not data:
        raise UserError("there are no labelled rows", where=rows["test"].source)
    splits = Splits(data.get("train"), data.get("validation"), data.get("test"), task, len(faults), notes)
    _complete(splits, seed, validation_fraction, train_rows)
    return splits


def _check_arguments(validation_fraction: float, train_rows: int | None, on_bad_row: str) -> None:
    if not 0 <= validation_fraction < 1:
        raise UserError(f"validation_fraction lies in [0, 1), not {validation_fraction}")
    if train_rows is not None and train_rows < 1:
        raise UserError(f"train_rows is at least 1, not {train_rows}")
    if on_bad_row not in ("error", "skip"):
        raise UserError(f"on_bad_row is error or skip, not {on_bad_row!r}")


def _open(source: Source, task: Task) -> tuple[dict[SplitName, list[Table]], list[str]]:
    notes: list[str] = []
    files: dict[SplitName, list[Path]]
    if isinstance(source, Mapping):
        if not source or not set(source) <= set(SPLITS):
            raise UserError(f"files are named as train, validation and test, not {', '.join(source) or 'none at all'}")
        files = {name: [Path(source[name]).expanduser()] for name in SPLITS if name in source}
    elif source is None or (isinstance(source, str) and not _is_local(source)):
        return load_hub(source, task), notes
    elif (path := Path(source).expanduser()).is_dir():
        files, notes = find_files(path, task.splits)
    else:
        files = {"train": [path]}
    return {name: [read_table(path, task.headerless) for path in paths] for name, paths in files.items()}, notes


def _is_local(source: str) -> bool:
    """True for what exists, and for what can only be a path."""
    path = Path(source).expanduser()
    return path.exists() or extension(path) in EXTENSIONS or not is_hub_id(source) or source.startswith(".")


def _all(tables: Mapping[SplitName, Sequence[Table]]) -> list[Table]:
    return [table for part in tables.values() for table in part]


def _columns(
    tables: Mapping[SplitName, Sequence[Table]],
    task: Task,
    text: Sequence[str] | None,
    label: str | None,
    notes: list[str],
) -> dict[SplitName, list[tuple[Table, Columns]]]:
    """Each table that has rows with its columns: those of the first one wherever a table has them too."""
    found: dict[SplitName, list[tuple[Table, Columns]]] = {}
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
                given = label if label_needed or label in table.names else None
                columns, note = find_columns(table, task, text, given, label_needed=label_needed)
                notes += [note] if note else []
            found.setdefault(split, []).append((table, columns))
            first = first or columns
    return found


def _same_columns(table: Table, columns: Columns, *, label_needed: bool) -> Columns | None:
    if not set(columns.texts) <= set(table.names):
        return None
    if columns.label is None or columns.label in table.names:
        return columns
    return None if label_needed else Columns(columns.texts, None)


def _to_data(rows: Mapping[SplitName, Rows], task: Task, notes: list[str]) -> dict[SplitName, TextData]:
    """Labels to ids, by the task's classes or those of the training rows; test rows without labels are left out."""
    names, data = task.labels, {}
    for split, part in rows.items():
        if task.labelled and part.labels is None:
            notes.append(f"{part.source}: has no labels, so it is not used as a test split")
            continue
        if task.kind == "classification" and names is None:
            names = infer_classes(part)
        data[split] = to_data(part, task, names)
    return data


def _in_order(tables: Mapping[SplitName, Sequence[Table]], of_rows: Sequence[Fault]) -> list[Fault]:
    """All faults, of the reading of the tables and of their rows, as a reader of the files meets them."""
    faults = [*of_rows, *(fault for table in _all(tables) for fault in table.faults)]
    place = {table.where: i for i, table in enumerate(_all(tables))}
    return sorted(faults, key=lambda fault: (place[fault.where], fault.row))


def _bad_rows(faults: Sequence[Fault], total: int) -> UserError:
    listed = [f"  {fault.where}, {fault.unit} {fault.row}: {fault.problem}" for fault in faults[:_SHOWN]]
    if len(faults) > _SHOWN:
        listed.append(f"  and {len(faults) - _SHOWN} more")
    hint = "Mend them, or leave them out with --on-bad-row skip."
    if any(NOT_UTF8 in fault.problem for fault in faults):
        hint += " A file that is not UTF-8 can be converted: iconv -f latin1 -t utf-8 OLD > NEW"
    return UserError("\n".join([f"{len(faults)} of {total} rows cannot be used:", *listed]), hint=hint)


def _notes_on_rows(tables: Mapping[SplitName, Sequence[Table]], faults: Sequence[Fault]) -> list[str]:
    notes = [f"{table.where}: {table.blank} blank lines passed over" for table in _all(tables) if table.blank]
    for where, count in Counter(fault.where for fault in faults).items():
        some = [fault for fault in faults if fault.where == where][:_SHOWN]
        listed = "; ".join(f"{fault.unit} {fault.row} {fault.problem}" for fault in some)
        notes.append(f"{where}: {count} bad rows left out ({listed}{'; ...' if count > len(some) else ''})")
    return notes


def _complete(splits: Splits, seed: int, validation_fraction: float, train_rows: int | None) -> None:
    """Cut and sample, then say what a reader of the results should know."""
    train, notes = splits.train, splits.notes
    if train is None:
        notes.append("there is no training split")
    else:
        if splits.validation is None and splits.task.labelled and validation_fraction:
            train, splits.validation = train.split(validation_fraction, seed)
            notes.append(
                f"no validation split: {len(splits.validation)} training rows were set aside for it (seed {seed})"
            )
        if train_rows is not None and train_rows < len(train):
            notes.append(f"{train_rows} of {len(train)} training rows are used (seed {seed})")
            train = train.sample(train_rows, seed)
        _check_classes(train, notes)
        splits.train = train
        notes += _repeats(train, splits.validation, splits.test)
    if splits.task.labelled and splits.test is None:
        notes.append("no labelled test split: nothing is measured on test rows")


def _check_classes(train: TextData, notes: list[str]) -> None:
    if train.label_names is None or train.labels is None:
        return
    present = set(train.labels)
    if len(present) < 2:
        name = train.label_names[int(train.labels[0])]
        raise UserError(
            f"every training row has the label {name!r}",
            where=train.source,
            hint="A classifier needs rows of at least two classes; is this the right column (--label)?",
        )
    absent = [name for i, name in enumerate(train.label_names) if i not in present]
    if absent:
        notes.append(f"no training row has the label {', '.join(absent)}")


def _repeats(train: TextData, validation: TextData | None, test: TextData | None) -> list[str]:
    seen = set(train.texts)
    notes = []
    if len(seen) < len(train):
        notes.append(f"{len(train) - len(seen)} of {len(train)} training rows repeat another one's text")
    for name, data in (("validation", validation), ("test", test)):
        shared = sum(row in seen for row in data.texts) if data else 0
        if data and shared:
            notes.append(f"{shared} of {len(data)} {name} rows have a text that is in the training rows too")
    return notes

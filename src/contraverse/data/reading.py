"""From one source to checked rows: a Hub data set, a file, a folder, or files by split."""

import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from contraverse.data.columns import Columns, arrange, find_columns
from contraverse.data.dataset import TextData
from contraverse.data.folder import SPLITS, SplitName, find_files
from contraverse.data.formats import AS_IT_IS, EXTENSIONS, Form, extension, read_table
from contraverse.data.hub import is_hub_id, load_hub
from contraverse.data.in_memory import is_table, read_in_memory
from contraverse.data.rows import Rows, infer_classes, read_rows, to_data
from contraverse.data.tables import BadRow, Table
from contraverse.data.tasks import Task
from contraverse.data.values import NOT_UTF8
from contraverse.errors import UserError

MEND = "Mend them, or leave them out with --on-bad-row skip."
_SHOWN = 5

OnBadRow = Literal["error", "skip"]
Files = Mapping[str, str] | Mapping[str, Path]


@dataclass(frozen=True)
class Read:
    """The rows of each split that the source has with labels, and what a reader should know of them."""

    data: dict[SplitName, TextData]
    skipped: int
    notes: list[str]
    columns: Columns | None = None
    """Those that were read, of the first table."""


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
    if text is None:
        tables = {split: [arrange(table, task) for table in part] for split, part in tables.items()}
    columns = _columns(tables, task, text, label, trained, notes)
    rows = {split: read_rows(part, task, may_be_unlabelled=split == "test") for split, part in columns.items()}
    data = _to_data(rows, task, task.labels or names, notes)
    faults = _in_order(tables, [fault for part in rows.values() for fault in part.faults])
    if faults and on_bad_row == "error":
        raise _bad_rows(faults, _all(tables))
    notes += _notes_on_rows(tables, faults)
    for split in tables:
        if split not in rows or (split in data and not len(data[split])):
            raise UserError("no usable row is left", where=tables[split][0].where)
    if tables and not data:
        raise UserError("there are no labelled rows", where=rows[next(iter(rows))].source)
    first = next((used for part in columns.values() for _, used in part), None)
    return Read(data, len(faults), notes, first)


def _open(source: str | Path | Files | None, task: Task, form: Form) -> tuple[dict[SplitName, list[Table]], list[str]]:
    notes: list[str] = []
    files: dict[SplitName, list[Path]]
    if is_table(source):
        return {"train": [read_in_memory(source, "the table")]}, notes
    if isinstance(source, Mapping) and all(map(is_table, source.values())):
        return {name: [read_in_memory(source[name], f"the {name} table")] for name in SPLITS if name in source}, notes
    if isinstance(source, Mapping):
        files = {name: [Path(source[name]).expanduser()] for name in SPLITS if name in source}
    elif source is None or (isinstance(source, str) and not is_local(source)):
        return load_hub(source, task), notes
    elif (path := Path(source).expanduser()).is_dir():
        files, notes = find_files(path, task.splits)
    else:
        files = {"train": [path]}
    tables = {name: [read_table(path, task.headerless, form) for path in paths] for name, paths in files.items()}
    return tables, [*notes, *(note for table in _all(tables) for note in table.notes)]


def is_local(source: str) -> bool:
    """True for what exists, and for what can only be a path."""
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", source):
        hint = "Give OWNER/NAME of a data set on the Hub, or fetch the file first."
        raise UserError("is an address, not a file, a folder or a name on the Hub", where=source, hint=hint)
    path = Path(source).expanduser()
    return path.exists() or extension(path) in EXTENSIONS or not is_hub_id(source) or source.startswith(".")


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
                columns, note = find_columns(
                    table, task, text, given, label_needed=label_needed, trained=first or trained
                )
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


def _to_data(
    rows: Mapping[SplitName, Rows], task: Task, names: tuple[str, ...] | None, notes: list[str]
) -> dict[SplitName, TextData]:
    """Labels to ids, by ``names`` or the classes of the first rows; a split without a label is not used."""
    data = {}
    for split, part in rows.items():
        if task.labelled and part.labels is None:
            notes.append(f"{part.source}: has no labels, so it is not used as a test split")
            continue
        if task.kind == "classification" and names is None:
            names = infer_classes(part)
        found = to_data(part, task, names)
        if part.left_out:
            notes.append(f"{part.source}: {_left_out(part)}")
        if len(found) or part.faults or not part.left_out:
            data[split] = found
    return data


def _left_out(rows: Rows) -> str:
    counted = ", ".join(f"{count} {label!r}" for label, count in rows.left_out.items())
    return f"{sum(rows.left_out.values())} rows left out for their label ({counted})"


def _in_order(tables: Mapping[SplitName, Sequence[Table]], of_rows: Sequence[BadRow]) -> list[BadRow]:
    """All faults, of the reading of the tables and of their rows, as a reader of the files meets them."""
    faults = [*of_rows, *(fault for table in _all(tables) for fault in table.faults)]
    place = {table.where: i for i, table in enumerate(_all(tables))}
    return sorted(faults, key=lambda fault: (place[fault.where], fault.row))


def _bad_rows(faults: Sequence[BadRow], tables: Sequence[Table]) -> UserError:
    total = sum(len(table.rows) + len(table.faults) for table in tables)
    listed = [f"  {fault.where}, {fault.unit} {fault.row}: {fault.problem}" for fault in faults[:_SHOWN]]
    if len(faults) > _SHOWN:
        listed.append(f"  and {len(faults) - _SHOWN} more")
    hint = MEND
    foreign = {fault.where for fault in faults if NOT_UTF8 in fault.problem}
    hint += "".join(f" {table.hint}" for table in tables if table.where in foreign and table.hint)
    return UserError("\n".join([f"{len(faults)} of {total} rows cannot be used:", *listed]), hint=hint)


def _notes_on_rows(tables: Mapping[SplitName, Sequence[Table]], faults: Sequence[BadRow]) -> list[str]:
    notes = [f"{table.where}: {table.blank} blank lines passed over" for table in _all(tables) if table.blank]
    for where, count in Counter(fault.where for fault in faults).items():
        some = [fault for fault in faults if fault.where == where][:_SHOWN]
        listed = "; ".join(f"{fault.unit} {fault.row} {fault.problem}" for fault in some)
        notes.append(f"{where}: {count} bad rows left out ({listed}{'; ...' if count > len(some) else ''})")
    return notes

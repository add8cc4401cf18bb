"""`load_splits`: from any source to training, validation and test rows, cut, drawn and mixed as asked."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from contraverse.data.adversaries import with_adversaries
from contraverse.data.class_notes import alike, check_cut, unmeasured
from contraverse.data.columns import Columns
from contraverse.data.dataset import Splits, TextData
from contraverse.data.formats import Form
from contraverse.data.in_memory import is_table
from contraverse.data.mixture import find_parts, read_parts
from contraverse.data.reading import OnBadRow, read_source
from contraverse.data.tasks import TASKS, Task, get_task
from contraverse.errors import UserError

Source = Any
"""A path, a Hub id, files or tables by split, a data frame, a data set of `datasets`, or a list of sources."""


def load_splits(
    task: str | Task,
    source: Source,
    *,
    text: str | Sequence[str] | None = None,
    label: str | None = None,
    seed: int = 42,
    validation_fraction: float = 0.1,
    rows: Literal["all", "paper"] = "all",
    train_rows: int | None = None,
    validation_rows: int | None = None,
    test_rows: int | None = None,
    adversaries: str | Path | None = None,
    on_bad_row: OnBadRow = "error",
    trained: Columns | None = None,
    delimiter: str | None = None,
    encoding: str | None = None,
) -> Splits:
    """Load a task's data.

    ``source``: a file (the training rows), a folder (files called train, validation or dev, and test; the rule is
    in `find_files`), ``{"train": file, "validation": file, "test": file}``, a Hub id (``owner/name`` or
    ``owner/name:configuration``), or None for the task's own Hub data set; a data frame of pandas, a
    `datasets.Dataset`, or such tables by split. A list is several of these, whose training
    rows are mixed: see `contraverse.data.mixture`. ``text`` and ``label`` name columns; what is not named is found
    as `find_columns` says.

    Without a validation split, ``validation_fraction`` of the training rows (0 to 1; 0 for none) becomes one, cut by
    ``seed`` and stratified; never test rows. Tasks without labels have nothing to validate on, and none is cut. A
    missing test split stays missing. A test split without labels (no column, or all -1) is not used.

    ``rows="paper"`` draws as many rows of each class by ``seed`` as the task's paper does (`Task.paper_rows`): test
    rows from the test split, validation rows from the validation split or, where there is none, from the training
    rows, and training rows from those that are left. ``train_rows``, ``validation_rows`` and ``test_rows`` keep that
    many rows of a split, a stratified sample by ``seed``; where validation rows are cut, ``validation_rows`` is how
    many. Training rows are drawn after the cut: the validation rows do not depend on their number.

    ``delimiter``: what separates the fields of CSV and TSV files, None to tell it by their rows; a .txt file is a
    table where it is named. ``encoding``: of text files, None for UTF-8.

    ``trained``: the columns that a model was trained on (`Splits.read_from`); they are read where they are there and
    no others are named, and a note says which is missing.

    ``adversaries``: a file of rewritten texts that are added to the training rows alone, as `with_adversaries` says.

    A bad row (a text or label that is missing, empty, of the wrong type, unknown, not UTF-8, holds NUL; a ragged or
    malformed line) is an error that lists the first of them, or with ``on_bad_row="skip"`` is left out and counted.
    A row whose label the task leaves out (`Task.left_out`) is no bad row, and counted too. "NA", "None" and "null" in
    a CSV are text. Blank lines are no rows.

    Raises:
        UserError: the source cannot be found or read, a column cannot be told, there are bad rows, a split is empty,
            has too few rows to draw from, or the training rows are of one class.
    """
    task = get_task(task) if isinstance(task, str) else task
    kept = {"train": train_rows, "validation": validation_rows, "test": test_rows}
    _check_arguments(task, validation_fraction, rows, kept, on_bad_row)
    columns = [text] if isinstance(text, str) else text
    parts, form = find_parts(source), Form(delimiter, encoding)
    if parts is None:
        assert source is None or isinstance(source, str | Path | Mapping) or is_table(source)
        read = read_source(source, task, text=columns, label=label, on_bad_row=on_bad_row, trained=trained, form=form)
    else:
        read = read_parts(parts, task, text=columns, label=label, seed=seed, on_bad_row=on_bad_row, form=form)
    found = read.data
    parts_of = found.get("train"), found.get("validation"), found.get("test")
    splits = Splits(*parts_of, task, read.skipped, read.notes, read.columns)
    paper = task.paper_rows if rows == "paper" else None
    _set_validation_aside(splits, seed, (paper or {}).get("validation"), validation_rows or validation_fraction)
    _draw(splits, seed, paper or {}, kept)
    if adversaries is not None and splits.train is not None:
        splits.train, note = with_adversaries(splits, Path(adversaries))
        splits.notes.append(note)
    _look(splits)
    return splits


def _check_arguments(
    task: Task, validation_fraction: float, rows: str, kept: Mapping[str, int | None], on_bad_row: str
) -> None:
    if not 0 <= validation_fraction < 1:
        raise UserError(f"validation_fraction lies in [0, 1), not {validation_fraction}")
    if rows not in ("all", "paper"):
        raise UserError(f"rows is all or paper, not {rows!r}")
    if rows == "paper" and task.paper_rows is None:
        drawn = ", ".join(name for name, known in TASKS.items() if known.paper_rows is not None)
        raise UserError(f"no paper's draw is known for task {task.name!r}", hint=f"There is one for {drawn}.")
    for split, count in kept.items():
        if count is not None and count < 1:
            raise UserError(f"{split}_rows is at least 1, not {count}")
    if on_bad_row not in ("error", "skip"):
        raise UserError(f"on_bad_row is error or skip, not {on_bad_row!r}")


def _set_validation_aside(splits: Splits, seed: int, per_class: int | None, part: float) -> None:
    """``per_class`` rows of each class, else ``part`` of them: a number of rows from 1, a fraction below."""
    train = splits.train
    if train is None or splits.validation is not None or not splits.task.labelled or not part:
        return
    if per_class is not None:
        splits.train, validation = train.draw(per_class, seed)
    else:
        if part >= len(train):
            raise UserError(f"{part:g} of {len(train)} training rows cannot be set aside", where=train.source)
        splits.train, validation = train.split(part / len(train) if part >= 1 else part, seed)
        if train.label_names is not None:
            before, after = set(train.labels or ()), set(splits.train.labels or ())
            check_cut(before, after, len(validation), len(train), "rows", train.source)
    validation.repeats = None
    splits.validation = validation
    splits.notes.append(f"no validation split: {len(validation)} training rows were set aside for it (seed {seed})")


def _draw(splits: Splits, seed: int, per_class: Mapping[str, int], kept: Mapping[str, int | None]) -> None:
    parts = {"training": splits.train, "validation": splits.validation, "test": splits.test}
    drawn = []
    for (said, data), (split, count) in zip(parts.items(), kept.items(), strict=True):
        part = data
        if part is not None and split in per_class:
            part = part.draw(per_class[split], seed)[1]
        if part is not None and count is not None:
            part = part.sample(count, seed)
        if data is not None and part is not None and len(part) < len(data):
            splits.notes.append(f"{len(part)} of {len(data)} {said} rows are used (seed {seed})")
        drawn.append(part)
    splits.train, splits.validation, splits.test = drawn


def _look(splits: Splits) -> None:
    """Say what a reader of the results should know."""
    train, notes = splits.train, splits.notes
    if train is None:
        notes.append("there is no training split")
    else:
        _check_classes(train, notes)
        validation = splits.validation
        if train.label_names is not None:
            notes += alike(train.label_names)
            if validation is not None:
                present = set(map(int, validation.labels or ()))
                notes += unmeasured(train.label_names, set(map(int, train.labels or ())), present, "row")
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

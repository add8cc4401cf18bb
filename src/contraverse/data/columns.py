"""Columns of a table: those of the texts and of the label, by flag, by known name or by content; usable values."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal, NamedTuple

from contraverse.data.tables import Table
from contraverse.data.tasks import TASKS, Task
from contraverse.errors import UserError, nearest

_TEXT_NAMES: dict[int, tuple[tuple[str, ...], ...]] = {
    1: (("text",), ("sentence",), ("content",), ("review",), ("comment",), ("tweet",), ("document",)),
    2: (
        ("sentence1", "sentence2"),
        ("premise", "hypothesis"),
        ("question1", "question2"),
        ("question", "sentence"),
        ("text1", "text2"),
        ("text_a", "text_b"),
    ),
    3: (("anchor", "positive", "negative"), ("sent0", "sent1", "hard_neg")),
}
_LABEL_NAMES = {
    "classification": ("label", "labels", "class", "category", "target", "sentiment", "intent", "topic"),
    "similarity": ("score", "label", "similarity", "relatedness_score"),
}
NOT_UTF8 = "is not valid UTF-8"
_LOOKED_AT = 1000
"""Rows looked at when columns are told by what they contain."""
_MOST_CLASSES = 100


class Columns(NamedTuple):
    """The columns that are used; ``label`` is None where a table has none."""

    texts: tuple[str, ...]
    label: str | None


def arrange(table: Table, task: Task) -> Table:
    """``table`` with the task's own text columns, where it is one of the copies in ``task.layouts``; else as it is."""
    layout = next((layout for layout in task.layouts if set(layout.marks) <= set(table.names)), None)
    if layout is None:
        return table
    made = dict(zip(task.columns, layout.texts, strict=True))
    used = {name for names in layout.texts for name in names} | set(made)
    return replace(
        table,
        names=(*task.columns, *(name for name in table.names if name not in used)),
        column=lambda name: _joined(table, made[name]) if name in made else table.column(name),
    )


def _joined(table: Table, names: Sequence[str]) -> Sequence[Any]:
    columns = [table.column(name) for name in names]
    return columns[0] if len(columns) == 1 else [_join(parts) for parts in zip(*columns, strict=True)]


def _join(parts: Sequence[Any]) -> Any:
    """The parts that say something; what is no text is handed on alone, so that its row is reported."""
    wrong = [part for part in parts if part is not None and not isinstance(part, str)]
    return wrong[0] if wrong else " ".join(part for part in parts if part and not part.isspace())


def find_columns(
    table: Table,
    task: Task,
    text: Sequence[str] | None = None,
    label: str | None = None,
    *,
    label_needed: bool = True,
    trained: Columns | None = None,
) -> tuple[Columns, str | None]:
    """The columns of ``table`` for ``task``, and a note if any was not found by flag or by its canonical name.

    In this order: the columns named in ``text`` and ``label``; those that training used, ``trained``; the task's own
    names; the names its copies use; the names common for such data (all regardless of case); then by content: texts
    are the string columns with the longest strings, in the table's order; a label is the one column left with at most
    100 different values (for a score: the one column of numbers). Where the label is not needed, it is not looked for
    by content. The note says which column of ``trained`` is not there.

    Raises:
        UserError: a named column is not there, one that is needed cannot be told, or a text column of ``trained`` is
            not there and several others may be meant.
    """
    _check_flags(table, task, text, label)
    trained = Columns((), None) if trained is None or table.plain else trained
    known = _as_trained(table, task, trained)
    absent: list[str] = []
    if text is None and not known.texts and len(trained.texts) == len(task.columns):
        absent = [name for name in trained.texts if _by_name(table, (name,)) is None]
    missing = list(absent)
    if label is None and label_needed and task.labelled and trained.label is not None and known.label is None:
        missing.append(trained.label)
    found_label = label or known.label or (_by_name(table, _label_names(task)) if task.labelled else None)
    texts = tuple(text) if text else known.texts or _texts_by_name(table, task, found_label)
    guessed = not texts
    if guessed:
        texts = _texts_by_content(table, task, found_label)
        if absent and len(_string_columns(table, found_label)) > len(texts):
            raise UserError(
                f"there is no column {_listed(absent)}, which training used, and several others may be meant",
                where=table.where,
                hint=f"Name the text column with --text. The columns: {_listed(_near(absent[0], table))}.",
            )
    if task.labelled and found_label is None and label_needed:
        found_label = _label_by_content(table, task, texts)
        guessed = True
    columns = Columns(texts, found_label)
    as_named = (text is not None or texts == task.columns) and (label is not None or found_label == task.label)
    if as_named and not missing:
        return columns, None
    others_by = "--text and --label name others" if task.labelled else "--text names another"
    how = f"told by content; {others_by}" if guessed else f"by name; {others_by}" if missing else "by name"
    if known.texts and not missing:
        how = "as in training"
    note = f"{table.where}: "
    if missing:
        note += f"there is no column {_listed(missing)}, which training used: "
    note += f"text from {_listed(texts)}"
    return columns, f"{note}{f', label from {found_label!r}' if found_label else ''} ({how})"


def infer_task(
    table: Table, text: Sequence[str] | None, label: str | Literal[False] | None, names: Sequence[str] | None
) -> tuple[Task, str | None]:
    """The task of a table of which no more is known, and a note where it has no labels though none were asked for.

    A row has as many texts as ``text`` names; else one, or two or three where only names of pairs or of triplets are
    among the columns. Its label is a score where the column holds numbers that are not all whole and no class
    ``names`` are given, else a class, one of ``names`` if given. It has none with ``label`` False, in triplets, where
    no column looks like a label, and where every value is missing or -1.

    Raises:
        UserError: more than three text columns are named, or no text column can be told.
    """
    if not table.rows:
        return TASKS["text"], None  # the reader says why
    width = len(text) if text else _count_texts(table)
    if width == 3 or label is False:
        task = TASKS["nli"] if width == 3 else replace(_own_task(width), label=None, kind="sentences")
        return replace(task, hub=None), None
    task = _own_task(width)
    if names:
        task = replace(task, labels=tuple(names))
    column = label or _by_name(table, [name for kind in _LABEL_NAMES.values() for name in kind])
    if column is None:
        texts = tuple(text) if text else _texts_by_name(table, task, None) or _texts_by_content(table, task, None)
        candidates = _label_candidates(table, task, texts)
        if not candidates:
            others = [name for name in table.names if name not in texts]
            note = f"{table.where}: no label column was found among {_listed(others)}" if others else None
            return replace(task, label=None, kind="sentences"), note
        return task, None
    if column not in table.names:
        return task, None  # `find_columns` names those that are there
    values = [value for value in table.column(column) if value not in HIDDEN and value == value]
    if not values:
        return replace(task, label=None, kind="sentences"), f"{table.where}: no row has a label in {column!r}"
    declared = table.classes.get(column)
    if not names and declared:
        return replace(task, labels=tuple(declared), label=column), None
    scores = not names and all(map(_is_number, values)) and not all(float(value).is_integer() for value in values)
    return replace(task, label=column, kind="similarity" if scores else "classification"), None


HIDDEN = (None, "", -1, "-1", "-1.0", "hidden")
"""Values that stand for a label that is not there."""


def _own_task(width: int) -> Task:
    if width not in (1, 2):
        raise UserError(f"a row holds one, two or three texts, not {width}")
    return TASKS["text" if width == 1 else "pair"]


def _count_texts(table: Table) -> int:
    # The names of pairs first: "sentence" alone is a text, and half of a pair beside "question".
    for width, groups in sorted(_TEXT_NAMES.items(), reverse=True):
        if any(all(_by_name(table, (name,)) for name in group) for group in groups):
            return width
    return 1


def _as_trained(table: Table, task: Task, trained: Columns) -> Columns:
    """The columns of ``trained`` that ``table`` has, regardless of case: all the texts or none of them."""
    texts = [_by_name(table, (name,)) for name in trained.texts]
    there = tuple(name for name in texts if name is not None)
    label = _by_name(table, (trained.label,)) if task.labelled and trained.label is not None else None
    if len(there) < len(task.columns) or len(trained.texts) != len(task.columns) or label in there:
        there = ()
    return Columns(there, label)


def _check_flags(table: Table, task: Task, text: Sequence[str] | None, label: str | None) -> None:
    if text and len(text) != len(task.columns):
        other = {1: "text", 2: "pair"}.get(len(text))
        raise UserError(
            f"task {task.name!r} takes {len(task.columns)} text column(s), {len(text)} were named: {_listed(text)}",
            hint=f"For such data take --task {other}." if other else None,
        )
    if label and not task.labelled:
        raise UserError(f"task {task.name!r} has no label, but {label!r} was named as its column")
    for name in (*(text or ()), *((label,) if label else ())):
        if name not in table.names:
            raise UserError(
                f"there is no column {name!r}", where=table.where, hint=f"Its columns: {_listed(_near(name, table))}."
            )


def _near(name: str, table: Table) -> list[str]:
    return nearest(name, table.names)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names)) or "none"


def _label_names(task: Task) -> tuple[str, ...]:
    return (task.label or "", *task.other_labels, *_LABEL_NAMES[task.kind])


def _by_name(table: Table, wanted: Sequence[str]) -> str | None:
    names = {name.casefold(): name for name in reversed(table.names)} | {name: name for name in table.names}
    matches = (names.get(name) or names.get(name.casefold()) for name in wanted)
    return next((name for name in matches if name), None)


def _texts_by_name(table: Table, task: Task, label: str | None) -> tuple[str, ...]:
    for wanted in (task.columns, *task.other_columns, *_TEXT_NAMES[len(task.columns)]):
        matches = [_by_name(table, (name,)) for name in wanted]
        if label not in matches and None not in matches:
            return tuple(name for name in matches if name is not None)
    return ()


def _texts_by_content(table: Table, task: Task, label: str | None) -> tuple[str, ...]:
    wanted = len(task.columns)
    lengths = _string_columns(table, label)
    texts = sorted(lengths, key=lambda name: -lengths[name])[:wanted]
    if len(texts) < wanted or not table.rows:
        raise UserError(
            f"no column for {_listed(task.columns)} is to be found",
            where=table.where,
            hint=f"Name the text column with --text. The columns: {_listed(_near(task.columns[0], table))}.",
        )
    return tuple(name for name in table.names if name in texts)


def _string_columns(table: Table, label: str | None) -> dict[str, float]:
    """The mean length of each column of strings but the label."""
    lengths = {name: _mean_length(table.column(name)[:_LOOKED_AT]) for name in table.names if name != label}
    return {name: length for name, length in lengths.items() if length > 0}


def _mean_length(values: Sequence[Any]) -> float:
    """Mean length of a column's strings; 0 where most values are none, or where they are numbers."""
    strings = [value for value in values if isinstance(value, str) and not _is_number(value)]
    return sum(map(len, strings)) / len(strings) if 2 * len(strings) > len(values) else 0.0


def _is_number(value: Any) -> bool:
    try:
        float(value)
    except (TypeError, ValueError):
        return False
    return True


def _label_candidates(table: Table, task: Task, texts: tuple[str, ...]) -> list[str]:
    """The columns whose values may be labels."""
    candidates = []
    for name in table.names:
        values = [value for value in table.column(name)[:_LOOKED_AT] if value not in (None, "")]
        if name in texts or not values:
            continue
        if task.kind == "similarity":
            fits = all(map(_is_number, values))
        else:
            fits = 2 <= len(set(map(str, values))) <= max(2, min(_MOST_CLASSES, len(values) // 2))
        if fits:
            candidates.append(name)
    return candidates


def _label_by_content(table: Table, task: Task, texts: tuple[str, ...]) -> str:
    candidates = _label_candidates(table, task, texts)
    if len(candidates) == 1:
        return candidates[0]
    why = f"it may be {_listed(candidates)}" if candidates else "no column looks like one"
    raise UserError(
        f"which column is the label cannot be told: {why}",
        where=table.where,
        hint=f"Name it with --label. The columns: {_listed(_near(task.label or 'label', table))}.",
    )


def text_problem(text: Any, column: str) -> str | None:
    """Problem of a text in this column, None for a usable one."""
    if not isinstance(text, str):
        return f"{column!r} is {'missing' if is_missing(text) else f'a {type(text).__name__}, not text'}"
    if not text or text.isspace():
        return f"{column!r} is empty"
    if "\0" in text:
        return f"{column!r} holds a NUL byte"
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            code = ord(text[error.start])
            return f"{column!r} {NOT_UTF8}" + (f" (byte 0x{code - 0xDC00:02x})" if 0xDC80 <= code <= 0xDCFF else "")
    return None


def is_missing(value: Any) -> bool:
    """True for None, NaN, and pandas' NA and NaT."""
    return (
        value is None or type(value).__name__ in ("NAType", "NaTType") or (isinstance(value, float) and value != value)
    )

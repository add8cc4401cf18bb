"""Formats of text files: delimited tables, and JSON, one object a line or one list of objects.

A fault of one row (ragged, malformed) becomes a `BadRow` with its line, and the reader goes on, so that one pass finds
all of them.
"""

import csv
import json
import re
from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from contraverse.data.tables import BadRow, Indexed, Strings, Table, check_names
from contraverse.errors import UserError

_SEP = re.compile(r'"?sep=(.)"?\r?\n?', re.IGNORECASE)
"""The first line that Excel writes and reads to say what separates the fields."""
_END = re.compile(r"\r\n|\n|\r")
_MARKS = (",", ";", "\t", "|")
_TRIED = 200
"""Lines by which the separator is told."""


def read_delimited(
    text: str,
    path: Path,
    delimiter: str | None = None,
    headerless: tuple[str, ...] = (),
    *,
    usual: str = ",",
    hint: str | None = None,
) -> Table:
    """Read a table with a header line, and before it perhaps Excel's line ``sep=;``.

    ``delimiter`` None: what the line ``sep=`` says, else that one of comma, semicolon, tab and | in the header with
    which the fewest of the first lines are faulty, ``usual`` before others. ``headerless``: the names of the columns if
    the first line has as many fields and a bare number among them, which no header has. ``hint``: the way out where the
    header is not UTF-8.

    Raises:
        UserError: there is no header, it names a column twice, or it is not UTF-8.
    """
    lines = _Lines(text)
    notes = []
    named = _SEP.fullmatch(lines[0]) if lines else None
    if named is not None:
        lines = _Lines(text, first="\n")  # keeps the numbers of the others
        delimiter = delimiter or named[1]
    if delimiter is None:
        delimiter, unsure = _told_by_rows(lines, usual)
        if unsure:
            notes.append(f"{path}: fields are separated by {_spoken(delimiter)} (told by the rows; --delimiter)")
    records = _quoted(lines, delimiter)
    if delimiter == "\t" and '"' in text:
        # GLUE's tables are not quoted: a quotation mark there is a letter like any other. Read as quoted, such a table
        # loses rows; a table that is quoted has, read as plain, ragged rows wherever it makes a difference.
        records = min(records, _unquoted(lines, delimiter), key=lambda parsed: (len(parsed.faults), -len(parsed.lines)))
    if records.first is None:
        raise UserError("is empty", where=str(path), hint="Expected a header line and at least one row.")
    if records.faults and records.faults[0][0] < records.first_line:
        raise UserError(f"the header {records.faults[0][1]}", where=str(path))

    names, columns, numbers = tuple(name.strip() for name in records.first), records.columns, records.lines
    if len(names) == len(headerless) and any(name.isdigit() for name in names):
        names, numbers = headerless, array("q", [records.first_line, *numbers])
        columns = [Strings([value, *column]) for value, column in zip(records.first, columns, strict=True)]
    else:
        check_names(names, str(path), hint)
    place = {name: i for i, name in enumerate(names)}
    return Table(
        where=str(path),
        names=names,
        column=lambda name: columns[place[name]],
        rows=numbers,
        unit="line",
        faults=[BadRow(str(path), "line", line, problem) for line, problem in records.faults],
        blank=records.blank - (named is not None),
        notes=notes,
    )


class _Lines(Indexed[str]):
    """Lines of a text with their ends (LF, CR or both), cut out of it when they are asked for.

    Args:
        text: the text.
        first: what stands in the place of its first line; None for that itself.
    """

    def __init__(self, text: str, first: str | None = None) -> None:
        self._text, self._first = text, first
        self._ends = array("q", (match.end() for match in _END.finditer(text)))
        if text and (not self._ends or self._ends[-1] < len(text)):
            self._ends.append(len(text))

    def __len__(self) -> int:
        return len(self._ends)

    def item(self, index: int) -> str:
        if index == 0 and self._first is not None:
            return self._first
        end = self._ends[index]
        return self._text[self._ends[index - 1] if index else 0 : end]


def _told_by_rows(lines: Sequence[str], usual: str) -> tuple[str, bool]:
    """The separator, and whether another might have been meant."""
    header = next((line for line in lines if line.strip()), "")
    marks = [mark for mark in sorted(_MARKS, key=lambda mark: mark != usual) if mark in header]
    if len(marks) < 2:
        return (marks[0], marks[0] == "|") if marks else (usual, False)
    faults = {}
    for mark in marks:
        records = _quoted(lines[:_TRIED], mark)
        if records.first is not None and len(records.first) > 1:  # else the header holds it within quotes alone
            faults[mark] = len(records.faults)
    chosen = min(faults, key=lambda mark: faults[mark], default=usual)
    return chosen, len(faults) > 1


def _spoken(mark: str) -> str:
    return {"\t": "a tab"}.get(mark, repr(mark))


_LONGEST = 2**31 - 1
"""Characters of a field: the csv module's own limit, 131,072, is below a long document."""


class _Records:
    """The ``first`` record, and of the others the ``columns`` and the ``lines`` on which they began.

    ``faults`` are (line, problem).
    """

    def __init__(self) -> None:
        self.first: list[str] | None = None
        self.first_line = 0
        self.columns: list[Strings] = []
        self.lines = array("q")
        self.faults: list[tuple[int, str]] = []
        self.blank = 0

    def add(self, fields: list[str], line: int) -> None:
        if not fields:
            self.blank += 1
        elif self.first is None:
            self.first, self.first_line = fields, line
            self.columns = [Strings() for _ in fields]
        elif len(fields) != len(self.first):
            self.faults.append((line, f"has {len(fields)} fields, the header has {len(self.first)}"))
        else:
            for column, value in zip(self.columns, fields, strict=True):
                column.append(value)
            self.lines.append(line)


def _quoted(lines: Sequence[str], delimiter: str) -> _Records:
    """Parse with double quotes (RFC 4180). A quote gone wrong costs its own line only: reading resumes after it."""
    records, start = _Records(), 0
    limit = csv.field_size_limit(_LONGEST)
    try:
        while start < len(lines):
            rest = map(lines.__getitem__, range(start, len(lines)))
            reader, line = csv.reader(rest, delimiter=delimiter, strict=True), start + 1
            try:
                for fields in reader:
                    records.add(fields, line)
                    line = start + reader.line_num + 1
                break
            except csv.Error as error:
                records.faults.append((line, f"has a double quote that is not closed or not doubled ({error})"))
                start = line
    finally:
        csv.field_size_limit(limit)
    return records


def _unquoted(lines: Sequence[str], delimiter: str) -> _Records:
    records = _Records()
    for number, line in enumerate(lines, start=1):
        record = line.rstrip("\r\n")
        records.add(record.split(delimiter) if record else [], number)
    return records


_WANTED = "Expected one object a line, or one list of objects"


class JsonRows(NamedTuple):
    """Objects with their numbers, those of lines or of rows by ``unit``; ``faults`` are (number, problem)."""

    objects: list[tuple[int, dict[str, Any]]]
    faults: list[tuple[int, str]]
    unit: Literal["line", "row"]
    blank: int


def read_json(text: str, path: Path, lines: list[str], kind: str) -> JsonRows:
    """Read objects; ``lines`` are those of ``text``, and a list of objects is read of the ``kind`` ".json" alone.

    Raises:
        UserError: the file is one object, of columns or around a list, its objects have several lines, or it is a list
            that is not JSON.
    """
    values: list[tuple[int, Any]] = []
    faults: list[tuple[int, str]] = []
    blank = 0
    unit: Literal["line", "row"] = "line"
    if kind == ".json" and text.lstrip().startswith("["):
        unit = "row"
        try:
            values = list(enumerate(json.loads(text), start=1))
        except (ValueError, RecursionError) as error:
            raise UserError(f"is not JSON: {error}", where=str(path), hint=f"{_WANTED}.") from error
    else:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                blank += 1
                continue
            try:
                values.append((number, json.loads(line)))
            except (ValueError, RecursionError) as error:
                faults.append((number, f"is not JSON ({error})"))
        _refuse_one_object(text, path, values, faults)
    objects = [(number, value) for number, value in values if isinstance(value, dict)]
    faults += [
        (number, f"is a JSON {type(value).__name__}, not an object")
        for number, value in values
        if not isinstance(value, dict)
    ]
    return JsonRows(objects, sorted(faults), unit, blank)


def _refuse_one_object(text: str, path: Path, values: list[tuple[int, Any]], faults: list[tuple[int, str]]) -> None:
    """Refuse JSON that is no rows: tables by column, objects around a list, and objects that take several lines."""
    if faults:
        first, at = _first_value(text)
        if not isinstance(first, dict | list):
            return
        if text[at:].strip():
            if _several(text):
                hint = f"{_WANTED}: jq -c . {path.name} > lines-{path.name}"
                raise UserError("holds objects that take several lines each", where=str(path), hint=hint)
            return
    elif len(values) == 1 and isinstance(values[0][1], dict):
        first = values[0][1]
        nested = [value for value in first.values() if isinstance(value, dict | list)]
        rows = any(isinstance(value, list) and value and isinstance(value[0], dict) for value in nested)
        if not rows and len(nested) < max(1, len(first)):
            return
    else:
        return
    if isinstance(first, list):
        raise UserError(
            "is a list of several lines", where=str(path), hint="Call it X.json: X.jsonl is an object a line."
        )
    inside = [name for name, value in first.items() if isinstance(value, list) and value and isinstance(value[0], dict)]
    if inside:
        hint = f"{_WANTED}; the rows may be those of {inside[0]!r}: jq -c '.{inside[0]}[]' {path.name} > rows.jsonl"
    elif any(isinstance(value, dict | list) for value in first.values()):
        hint = f"{_WANTED}; of pandas: to_json('X.jsonl', orient='records', lines=True)."
    else:
        hint = f"{_WANTED}; this is one row on several lines: jq -c . {path.name} > rows.jsonl"
    raise UserError(
        f"is one JSON object, not rows ({', '.join(map(repr, list(first)[:5]))})", where=str(path), hint=hint
    )


def _first_value(text: str) -> tuple[Any, int]:
    start = len(text) - len(text.lstrip())
    try:
        return json.JSONDecoder().raw_decode(text, start)
    except (ValueError, RecursionError):
        return None, 0


def _several(text: str) -> bool:
    """True where all of ``text`` is objects, one after another."""
    at, decoder = 0, json.JSONDecoder()
    while at < len(text):
        if text[at].isspace():
            at += 1
            continue
        try:
            value, at = decoder.raw_decode(text, at)
        except (ValueError, RecursionError):
            return False
        if not isinstance(value, dict):
            return False
    return True

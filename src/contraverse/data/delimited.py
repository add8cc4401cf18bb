"""CSV and TSV: quoted fields, blank lines, ragged rows and quotes gone wrong."""

import csv
import io
from pathlib import Path

from contraverse.data.tables import Fault, Table, check_names
from contraverse.errors import UserError


def read_delimited(text: str, path: Path, delimiter: str | None = None, headerless: tuple[str, ...] = ()) -> Table:
    """Read a table with a header line.

    ``delimiter`` None: the first of comma, semicolon and tab that the header holds. ``headerless``: the names of the
    columns if the first line has as many fields and a bare number among them, which no header has.

    Raises:
        UserError: there is no header, it names a column twice, or it is not UTF-8.
    """
    lines = list(io.StringIO(text, newline=""))
    if delimiter is None:
        first = lines[0] if lines else ""
        delimiter = next((mark for mark in ",;\t" if mark in first), ",")
    records = _quoted(lines, delimiter)
    if delimiter == "\t" and '"' in text:
        # GLUE's tables are not quoted: a quotation mark there is a letter like any other. Read as quoted, such a table
        # loses rows; a table that is quoted has, read as plain, ragged rows wherever it makes a difference.
        records = min(records, _unquoted(lines, delimiter), key=lambda one: (len(one.faults), -len(one.fields)))
    if not records.fields:
        raise UserError("is empty", where=str(path), hint="Expected a header line and at least one row.")
    if records.faults and records.faults[0][0] < records.lines[0]:
        raise UserError(f"the header {records.faults[0][1]}", where=str(path))

    names, fields, numbers = tuple(name.strip() for name in records.fields[0]), records.fields, records.lines
    if len(names) == len(headerless) and any(name.isdigit() for name in names):
        names = headerless
    else:
        fields, numbers = fields[1:], numbers[1:]
        check_names(names, str(path))
    place = {name: i for i, name in enumerate(names)}
    return Table(
        where=str(path),
        names=names,
        column=lambda name: [row[place[name]] for row in fields],
        rows=numbers,
        unit="line",
        faults=[Fault(str(path), "line", line, problem) for line, problem in records.faults],
        blank=records.blank,
    )


_LONGEST = 2**31 - 1
"""Characters of a field: the csv module's own limit, 131,072, is below a long document."""


class _Records:
    """``fields[i]`` are the fields of the record that began on line ``lines[i]``; ``faults`` are (line, problem)."""

    def __init__(self) -> None:
        self.fields: list[list[str]] = []
        self.lines: list[int] = []
        self.faults: list[tuple[int, str]] = []
        self.blank = 0

    def add(self, fields: list[str], line: int) -> None:
        width = len(self.fields[0]) if self.fields else len(fields)
        if not fields:
            self.blank += 1
        elif len(fields) != width:
            self.faults.append((line, f"has {len(fields)} fields, the header has {width}"))
        else:
            self.fields.append(fields)
            self.lines.append(line)


def _quoted(lines: list[str], delimiter: str) -> _Records:
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


def _unquoted(lines: list[str], delimiter: str) -> _Records:
    records = _Records()
    for number, line in enumerate(lines, start=1):
        record = line.rstrip("\r\n")
        records.add(record.split(delimiter) if record else [], number)
    return records

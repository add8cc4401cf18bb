"""Readers of local files: CSV, TSV, JSON lines, JSON, Parquet and plain text, gz and bz2 too.

A fault of a file as a whole is a `UserError`. A fault of one row (ragged, malformed) becomes a `BadRow` with its line,
and the reader goes on, so that one pass finds all of them.
"""

import bz2
import codecs
import csv
import gzip
import io
import re
import zlib
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from contraverse.data.decoding import decode
from contraverse.data.json_rows import read_json
from contraverse.data.parquet import column_values, declared_classes, open_parquet
from contraverse.data.tables import BadRow, Table
from contraverse.errors import UserError, nearest

EXTENSIONS = (".parquet", ".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".txt")
"""The kinds of file that can be read; where a folder has one split in two of them, the first of these is taken."""

_ID = re.compile(r"[\w.-]+(/[\w.-]+)?(:[\w.-]+)?")
_UNPACK: dict[str, Callable[[bytes], bytes]] = {".gz": gzip.decompress, ".bz2": bz2.decompress}


def extension(path: Path) -> str:
    """``.csv`` of ``train.csv`` and of ``train.CSV.gz``."""
    inner = Path(path.stem) if is_compressed(path) else path
    return inner.suffix.lower()


def is_compressed(path: Path) -> bool:
    """True where the file's name ends as those that are unpacked first."""
    return path.suffix.lower() in _UNPACK


def is_hub_id(source: str) -> bool:
    """True for ``name``, ``owner/name`` and ``owner/name:configuration``."""
    return _ID.fullmatch(source) is not None


def is_local(source: str, endings: Collection[str] = EXTENSIONS) -> bool:
    """True for what exists, and for what can only be a path.

    Raises:
        UserError: it is an address.
    """
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", source):
        hint = "Give OWNER/NAME of a data set on the Hub, or fetch the file first."
        raise UserError("is an address, not a file, a folder or a name on the Hub", where=source, hint=hint)
    path = Path(source).expanduser()
    return path.exists() or extension(path) in endings or not is_hub_id(source) or source.startswith(".")


_DESCRIPTORS = ("/dev/fd/", "/dev/stdin", "/proc/self/fd/")
"""Paths of open descriptors: unlike a pipe that lies in a folder, they have somebody who writes and an end."""


class Form(NamedTuple):
    """Form of text files, as the user names it.

    ``delimiter``: one character, None to tell it by the rows; a .txt file is a table where one is named.
    ``encoding``: any that Python knows, None for UTF-8.
    """

    delimiter: str | None = None
    encoding: str | None = None


AS_IT_IS = Form()


def read_table(path: Path, headerless: tuple[str, ...] = (), form: Form = AS_IT_IS) -> Table:
    """Read one file; ``headerless`` as in `read_delimited`.

    What a shell hands over as /dev/fd/63 (``--data <(zcat rows.gz)``) or /dev/stdin has no ending: its kind is told by
    its first bytes.

    Text is UTF-8, with or without a byte order mark, or as ``form`` says. Bytes that are not UTF-8 come through as lone
    surrogates: whoever uses the row reports it.

    Raises:
        UserError: the file is not there, cannot be read, is damaged, of an unknown kind, or names a column twice.
    """
    kind = extension(path)
    if not path.exists():
        raise not_there(path)
    if str(path).startswith(_DESCRIPTORS):
        kind, data = _told_by_bytes(read_bytes(path))
    elif kind not in EXTENSIONS:
        raise UserError(
            f"a file that ends in {kind!r} cannot be read" if kind else "a file without an ending cannot be read",
            where=str(path),
            hint=f"Known endings: {', '.join(EXTENSIONS)}; each may be followed by .gz or .bz2.",
        )
    else:
        check_regular(path)
        data = read_bytes(path)
    if kind == ".parquet":
        return _read_parquet(data, path)
    text, hint = _text(data, path, form.encoding)
    delimiter = _delimiter(form.delimiter)
    if kind in (".csv", ".tsv") or (kind == ".txt" and delimiter is not None):
        usual = "\t" if kind == ".tsv" else ","
        table = read_delimited(text, path, delimiter, headerless, usual=usual, hint=hint)
    elif kind == ".txt":
        table = _read_text(text, path)
    else:
        table = _read_objects(text, path, kind)
    return replace(table, hint=hint)


def _told_by_bytes(data: bytes) -> tuple[str, bytes]:
    """The kind of file that the bytes are of, as an ending, and the bytes, unpacked."""
    for magic, unpack in ((b"\x1f\x8b", ".gz"), (b"BZh", ".bz2")):
        if data.startswith(magic):
            with suppress(OSError, EOFError, ValueError, zlib.error):
                return _told_by_bytes(_UNPACK[unpack](data))
    kinds = {b"PAR1": ".parquet", b"[": ".json", b"{": ".jsonl"}
    return next((kind for magic, kind in kinds.items() if data.lstrip().startswith(magic)), ".csv"), data


def _text(data: bytes, path: Path, encoding: str | None) -> tuple[str, str | None]:
    """The text of a file, and a hint for rows that are not UTF-8: see `decode`."""
    if encoding is None and b"\0" not in data:
        try:
            return data.removeprefix(codecs.BOM_UTF8).decode(), None
        except UnicodeDecodeError:
            pass
    return decode(data, path, encoding)


def _delimiter(named: str | None) -> str | None:
    if named is None:
        return None
    mark = {"\\t": "\t", "tab": "\t"}.get(named, named)
    if len(mark) != 1 or mark in '"\r\n\0 ' or mark.isalnum():
        hint = "One sign, for example ';' or '|'; tab for a tabulator."
        raise UserError(f"{named!r} cannot separate fields", where="--delimiter", hint=hint)
    return mark


def check_regular(path: Path) -> None:
    """Refuse a pipe or a device, which may never end.

    Raises:
        UserError: ``path`` is one, or a folder.
    """
    if not path.is_file():
        what = "is a folder, not a file" if path.is_dir() else "is a pipe, a device or the like, not a file"
        raise UserError(what, where=str(path), hint="Write what it gives into a file first.")


def not_there(path: Path) -> UserError:
    """The error of a path where nothing is, with the nearest names in its folder."""
    beside = [other.name for other in path.parent.iterdir()] if path.parent.is_dir() else []
    near = ", ".join(nearest(path.name, beside)[:5])
    hint = f"In that folder: {near}." if near else f"The folder {path.parent} is not there either, or is empty."
    return UserError("there is no such file or folder", where=str(path), hint=hint)


def read_bytes(path: Path) -> bytes:
    """The bytes of a file, unpacked where its name says so.

    Raises:
        UserError: it cannot be read or unpacked.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot be read: {error.strerror}", where=str(path)) from error
    if not is_compressed(path):
        return data
    try:
        return _UNPACK[path.suffix.lower()](data)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise UserError(
            f"cannot be unpacked: {error}", where=str(path), hint="The file is damaged or cut short: fetch it anew."
        ) from error


def _lines(text: str) -> list[str]:
    """Split at line feeds alone: str.splitlines would cut at form feeds and U+2028, which occur inside sentences."""
    lines = text.split("\n")
    if lines[-1] == "":
        lines.pop()
    return [line.removesuffix("\r") for line in lines]


def _read_objects(text: str, path: Path, kind: str) -> Table:
    rows = read_json(text, path, _lines(text), kind)
    return Table(
        where=str(path),
        names=tuple(dict.fromkeys(name for _, value in rows.objects for name in value)),
        column=lambda name: [value.get(name) for _, value in rows.objects],
        rows=[number for number, _ in rows.objects],
        unit=rows.unit,
        faults=[BadRow(str(path), rows.unit, number, problem) for number, problem in rows.faults],
        blank=rows.blank,
    )


def _read_text(text: str, path: Path) -> Table:
    lines = _lines(text)
    kept = [(number, line) for number, line in enumerate(lines, start=1) if line.strip()]
    return Table(
        where=str(path),
        names=("text",),
        column=lambda name: [line for _, line in kept],
        rows=[number for number, _ in kept],
        unit="line",
        blank=len(lines) - len(kept),
        plain=True,
    )


def _read_parquet(data: bytes, path: Path) -> Table:
    table = open_parquet(data, path)
    names = tuple(table.schema.names)
    check_names(names, str(path))
    return Table(
        where=str(path),
        names=names,
        column=lambda name: column_values(table.column(name)),
        rows=range(1, table.num_rows + 1),
        classes=declared_classes(table.schema.metadata or {}),
    )


def check_names(names: Sequence[str], where: str, hint: str | None = None) -> None:
    """Raise a `UserError` where two columns have one name, or one has a name that is not UTF-8, with this ``hint``."""
    twice = sorted(name for name, count in Counter(names).items() if name and count > 1)
    if twice:
        raise UserError(
            f"the header names {', '.join(map(repr, twice))} more than once",
            where=where,
            hint="Rename one of these columns.",
        )
    if any("\ud800" <= letter <= "\udfff" for name in names for letter in name):
        raise UserError("the header is not valid UTF-8", where=where, hint=hint or "Write it in UTF-8.")


_SEP = re.compile(r'"?sep=(.)"?\r?\n?', re.IGNORECASE)
"""The first line that Excel writes and reads to say what separates the fields."""
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
    lines = list(io.StringIO(text, newline=""))
    notes = []
    named = _SEP.fullmatch(lines[0]) if lines else None
    if named is not None:
        lines[0] = "\n"  # keeps the numbers of the others
        delimiter = delimiter or named[1]
    if delimiter is None:
        delimiter, unsure = _told_by_rows(lines, usual)
        if unsure:
            notes.append(f"{path}: fields are separated by {_spoken(delimiter)} (told by the rows; --delimiter)")
    records = _quoted(lines, delimiter)
    if delimiter == "\t" and '"' in text:
        # GLUE's tables are not quoted: a quotation mark there is a letter like any other. Read as quoted, such a table
        # loses rows; a table that is quoted has, read as plain, ragged rows wherever it makes a difference.
        records = min(
            records, _unquoted(lines, delimiter), key=lambda parsed: (len(parsed.faults), -len(parsed.fields))
        )
    if not records.fields:
        raise UserError("is empty", where=str(path), hint="Expected a header line and at least one row.")
    if records.faults and records.faults[0][0] < records.lines[0]:
        raise UserError(f"the header {records.faults[0][1]}", where=str(path))

    names, fields, numbers = tuple(name.strip() for name in records.fields[0]), records.fields, records.lines
    if len(names) == len(headerless) and any(name.isdigit() for name in names):
        names = headerless
    else:
        fields, numbers = fields[1:], numbers[1:]
        check_names(names, str(path), hint)
    place = {name: i for i, name in enumerate(names)}
    return Table(
        where=str(path),
        names=names,
        column=lambda name: [row[place[name]] for row in fields],
        rows=numbers,
        unit="line",
        faults=[BadRow(str(path), "line", line, problem) for line, problem in records.faults],
        blank=records.blank - (named is not None),
        notes=notes,
    )


def _told_by_rows(lines: list[str], usual: str) -> tuple[str, bool]:
    """The separator, and whether another might have been meant."""
    header = next((line for line in lines if line.strip()), "")
    marks = [mark for mark in sorted(_MARKS, key=lambda mark: mark != usual) if mark in header]
    if len(marks) < 2:
        return (marks[0], marks[0] == "|") if marks else (usual, False)
    faults = {}
    for mark in marks:
        records = _quoted(lines[:_TRIED], mark)
        if records.fields and len(records.fields[0]) > 1:  # else the header holds it within quotes alone
            faults[mark] = len(records.faults)
    chosen = min(faults, key=lambda mark: faults[mark], default=usual)
    return chosen, len(faults) > 1


def _spoken(mark: str) -> str:
    return {"\t": "a tab"}.get(mark, repr(mark))


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

"""Readers of local files: CSV, TSV, JSON lines, JSON, Parquet and plain text, gz and bz2 too.

What is wrong with a file as a whole is a `UserError`. What is wrong with one row (ragged, malformed) becomes a
`Fault` with its line, and the reader goes on, so that one pass finds all of them.
"""

import bz2
import gzip
import json
import zlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from contraverse.data.decoding import decode
from contraverse.data.delimited import read_delimited
from contraverse.data.json_rows import read_json
from contraverse.data.nearest import nearest
from contraverse.data.tables import Table, check_names
from contraverse.errors import UserError

EXTENSIONS = (".parquet", ".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".txt")
"""The kinds of file that can be read; where a folder has one split in two of them, the first of these is taken."""

_UNPACK: dict[str, Callable[[bytes], bytes]] = {".gz": gzip.decompress, ".bz2": bz2.decompress}


def extension(path: Path) -> str:
    """``.csv`` of ``train.csv`` and of ``train.CSV.gz``."""
    inner = Path(path.stem) if is_compressed(path) else path
    return inner.suffix.lower()


def is_compressed(path: Path) -> bool:
    """True where the file's name ends as those that are unpacked first."""
    return path.suffix.lower() in _UNPACK


class Form(NamedTuple):
    """What the user says of how text files are written.

    ``delimiter``: one character, None to tell it by the rows; a .txt file is a table where one is named.
    ``encoding``: any that Python knows, None for UTF-8.
    """

    delimiter: str | None = None
    encoding: str | None = None


AS_IT_IS = Form()


def read_table(path: Path, headerless: tuple[str, ...] = (), form: Form = AS_IT_IS) -> Table:
    """Read one file; ``headerless`` as in `read_delimited`.

    Text is UTF-8, with or without a byte order mark, or as ``form`` says. Bytes that are not UTF-8 come through as lone
    surrogates: whoever uses the row reports it.

    Raises:
        UserError: the file is not there, cannot be read, is damaged, of an unknown kind, or names a column twice.
    """
    kind = extension(path)
    if not path.exists():
        raise _not_there(path)
    if kind not in EXTENSIONS:
        raise UserError(
            f"a file that ends in {kind!r} cannot be read" if kind else "a file without an ending cannot be read",
            where=str(path),
            hint=f"Known endings: {', '.join(EXTENSIONS)}; each may be followed by .gz or .bz2.",
        )
    check_regular(path)
    data = _read_bytes(path)
    if kind == ".parquet":
        return _read_parquet(data, path)
    text, hint = decode(data, path, form.encoding)
    delimiter = _delimiter(form.delimiter)
    if kind in (".csv", ".tsv") or (kind == ".txt" and delimiter is not None):
        usual = "\t" if kind == ".tsv" else ","
        table = read_delimited(text, path, delimiter, headerless, usual=usual, hint=hint)
    elif kind == ".txt":
        table = _read_text(text, path)
    else:
        table = read_json(text, path, _lines(text))
    return replace(table, hint=hint)


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


def _not_there(path: Path) -> UserError:
    beside = [other.name for other in path.parent.iterdir()] if path.parent.is_dir() else []
    near = ", ".join(nearest(path.name, beside)[:5])
    hint = f"In that folder: {near}." if near else f"The folder {path.parent} is not there either, or is empty."
    return UserError("there is no such file or folder", where=str(path), hint=hint)


def _read_bytes(path: Path) -> bytes:
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
    import pyarrow as pa
    from pyarrow import parquet

    try:
        table = parquet.ParquetFile(pa.BufferReader(data)).read()
    except (pa.ArrowException, OSError) as error:
        raise UserError(
            f"cannot be read as Parquet: {str(error).splitlines()[0]}",
            where=str(path),
            hint="The file is damaged, cut short, or not Parquet at all.",
        ) from error
    names = tuple(table.schema.names)
    check_names(names, str(path))
    return Table(
        where=str(path),
        names=names,
        column=lambda name: _values(table.column(name)),
        rows=range(1, table.num_rows + 1),
        classes=declared_classes(table.schema.metadata or {}),
    )


def _values(column: Any) -> Sequence[Any]:
    """The column as Python values; bytes are decoded as text is."""
    import pyarrow as pa

    try:
        values: list[Any] = column.to_pylist()
    except UnicodeDecodeError:
        values = column.cast(pa.large_binary()).to_pylist()
    return [value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else value for value in values]


def declared_classes(metadata: dict[bytes, bytes]) -> dict[str, list[str]]:
    """Class names that `datasets` wrote into a Parquet file: its integers mean nothing without them."""
    try:
        features = json.loads(metadata[b"huggingface"])["info"]["features"]
        return {name: kind["names"] for name, kind in features.items() if kind.get("_type") == "ClassLabel"}
    except (KeyError, ValueError, TypeError, AttributeError):
        return {}

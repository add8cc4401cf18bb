"""Readers of local files: CSV, TSV, JSON lines, JSON, Parquet and plain text, gz and bz2 too.

What is wrong with a file as a whole is a `UserError`. What is wrong with one row (ragged, malformed) becomes a
`Fault` with its line, and the reader goes on, so that one pass finds all of them.
"""

import bz2
import gzip
import json
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from contraverse.data.delimited import read_delimited
from contraverse.data.nearest import nearest
from contraverse.data.tables import Fault, Table, Unit, check_names
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


def read_table(path: Path, headerless: tuple[str, ...] = ()) -> Table:
    """Read one file; ``headerless`` as in `read_delimited`.

    Text is UTF-8, with or without a byte order mark. Bytes that are not UTF-8 come through as lone surrogates: whoever
    uses the row reports it.

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
    data = _read_bytes(path)
    if kind == ".parquet":
        return _read_parquet(data, path)
    text = _decode(data, path)
    if kind == ".csv":
        return read_delimited(text, path, headerless=headerless)
    if kind == ".tsv":
        return read_delimited(text, path, "\t", headerless)
    if kind == ".txt":
        return _read_text(text, path)
    return _read_json(text, path)


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


def _decode(data: bytes, path: Path) -> str:
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise UserError(
            "is UTF-16, not UTF-8",
            where=str(path),
            hint=f"Save it as UTF-8: iconv -f utf-16 -t utf-8 {path.name} > utf8-{path.name}",
        )
    return data.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "surrogateescape")


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


def _read_json(text: str, path: Path) -> Table:
    """One object a line; or, in a .json file that begins with a bracket, one list of objects."""
    values: list[tuple[int, Any]] = []
    faults: list[Fault] = []
    blank = 0
    unit: Unit = "line"
    if extension(path) == ".json" and text.lstrip().startswith("["):
        unit = "row"
        try:
            values = list(enumerate(json.loads(text), start=1))
        except (ValueError, RecursionError) as error:
            raise UserError(
                f"is not JSON: {error}", where=str(path), hint="Expected one object a line, or one list of objects."
            ) from error
    else:
        for number, line in enumerate(_lines(text), start=1):
            if not line.strip():
                blank += 1
                continue
            try:
                values.append((number, json.loads(line)))
            except (ValueError, RecursionError) as error:
                faults.append(Fault(str(path), unit, number, f"is not JSON ({error})"))
    objects = [(number, value) for number, value in values if isinstance(value, dict)]
    faults += [
        Fault(str(path), unit, number, f"is a JSON {type(value).__name__}, not an object")
        for number, value in values
        if not isinstance(value, dict)
    ]
    return Table(
        where=str(path),
        names=tuple(dict.fromkeys(name for _, value in objects for name in value)),
        column=lambda name: [value.get(name) for _, value in objects],
        rows=[number for number, _ in objects],
        unit=unit,
        faults=sorted(faults),
        blank=blank,
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

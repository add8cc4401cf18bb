"""Local files: their kinds and bytes, their text in UTF-8 or the encoding that the user names, and their tables.

CSV, TSV, JSON lines, JSON, Parquet and plain text can be read, gz and bz2 too. A fault of a file as a whole is a
`UserError`.
"""

import bz2
import codecs
import gzip
import re
import zlib
from array import array
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from contraverse.data.formats import read_delimited, read_json
from contraverse.data.tables import BadRow, Strings, Table, check_names, column_values, declared_classes, open_parquet
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
    del data  # as large as the text
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
    kept, numbers, blank = Strings(), array("q"), 0
    for number, line in enumerate(_lines(text), start=1):
        if line.strip():
            kept.append(line)
            numbers.append(number)
        else:
            blank += 1
    return Table(
        where=str(path),
        names=("text",),
        column=lambda name: kept,
        rows=numbers,
        unit="line",
        blank=blank,
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


_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_LOOKED_AT = 1 << 20
_MULTIBYTE = re.compile(rb"[\xc2-\xdf][\x80-\xbf]|[\xe0-\xef][\x80-\xbf]{2}|[\xf0-\xf4][\x80-\xbf]{3}")
_MANY = 0.3
"""Share of letters beyond ASCII that no European text in Latin script reaches."""


def decode(data: bytes, path: Path, encoding: str | None = None) -> tuple[str, str | None]:
    """The text of a file, and a hint for whoever meets bytes that are not UTF-8, which become lone surrogates.

    ``encoding``: any that Python knows; None for UTF-8. A byte order mark is dropped.

    Raises:
        UserError: there is no such encoding, the file is not in it, or is UTF-16 or UTF-32 and none is named.
    """
    if encoding is not None:
        return _named(data, path, encoding), None
    if (other := _wide(data)) is not None:
        name, marked = other
        raise UserError(
            f"is {name[:6].upper()}{'' if marked else ' without a byte order mark'}, not UTF-8",
            where=str(path),
            hint=f"Read it as it is with --encoding {name}, or convert it: {_convert(name, path)}",
        )
    text = data.removeprefix(codecs.BOM_UTF8).decode("utf-8", "surrogateescape")
    return text, _hint(data, path) if any("\udc80" <= letter <= "\udcff" for letter in text) else None


def _named(data: bytes, path: Path, encoding: str) -> str:
    try:
        known = codecs.lookup(encoding)
        if not known._is_text_encoding:  # base64, rot13, zlib
            raise LookupError
    except (LookupError, ValueError) as error:
        hint = "For example utf-8, utf-16, windows-1252, latin-1, gb18030, shift_jis."
        raise UserError(f"there is no encoding {encoding!r}", where="--encoding", hint=hint) from error
    try:
        return data.decode(known.name).removeprefix("\ufeff")
    except UnicodeError as error:
        at = getattr(error, "start", 0)
        line = data[:at].count(b"\n") + 1
        raise UserError(
            f"is not {encoding}: byte 0x{data[at]:02x} on line {line}" if at < len(data) else f"is not {encoding}",
            where=str(path),
            hint="Leave --encoding out for UTF-8, or name another.",
        ) from error


def _wide(data: bytes) -> tuple[str, bool] | None:
    """The name of the encoding where characters have two or four bytes, and whether a mark says so."""
    for mark, name in _MARKS:
        if data.startswith(mark):
            return name, True
    some = data[:_LOOKED_AT]
    if b"\0" not in some or len(data) % 2:
        return None
    # All NUL bytes are on one side of the characters there, and a line feed has two bytes.
    for name, low in (("utf-16-le", 0), ("utf-16-be", 1)):
        text = some.decode(name, "replace")
        if b"\0" not in some[low::2] and "\n" in text and text.count("\ufffd") <= (len(some) < len(data)):
            return name, False
    return None


def _hint(data: bytes, path: Path) -> str:
    """A guess at the encoding of what is not UTF-8 as a whole."""
    whole = len(_MULTIBYTE.findall(data))
    broken = sum(byte > 0x7F for byte in _MULTIBYTE.sub(b"", data))
    if whole > broken:
        return f"Most of {path.name} is UTF-8: these rows alone are broken, or of another encoding."
    high = sum(byte > 0xBF for byte in data)
    letters = high + sum(97 <= byte | 32 <= 122 for byte in data)
    try:
        data.decode("windows-1252")
    except UnicodeError:
        western = False
    else:
        western = high <= _MANY * letters
    if western:
        return (
            "A file that is not UTF-8 is read with --encoding windows-1252 (Excel's on Windows) or another, "
            f"or converted: {_convert('windows-1252', path)}"
        )
    return "A file that is not UTF-8 is read with --encoding: windows-1251, gb18030, shift_jis, euc-kr, or its own."


def _convert(encoding: str, path: Path) -> str:
    return f"iconv -f {encoding} -t utf-8 {path.name} > utf8-{path.name}"

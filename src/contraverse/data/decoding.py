"""From the bytes of a text file to text: UTF-8, or the encoding that the user names; else a hint at which it is."""

import codecs
import re
from pathlib import Path

from contraverse.errors import UserError

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

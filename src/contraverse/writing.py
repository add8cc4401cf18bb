"""Files that appear whole or not at all, and faults of a disk in a user's words."""

import errno
import json
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from contraverse.errors import UserError

PARTIAL = ".partial"
OUTSIDE = {
    errno.ENOSPC: "make room on the disk, or choose another place",
    errno.EDQUOT: "make room in the quota, or choose another place",
    errno.EFBIG: "choose a place where files may be larger",
    errno.EROFS: "choose a place that can be written",
    errno.EACCES: "choose a place that you may use, or have its permissions changed",
    errno.EPERM: "choose a place that you may use, or have its permissions changed",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.ENOTDIR: "a part of this path is a file, not a folder",
    errno.EISDIR: "this is a folder, not a file",
    errno.ELOOP: "links lead in a circle here",
    errno.EIO: "the disk or the connection to it fails",
}
"""Errors that the machine or the user's choice of a place causes, and the way out of each."""
_WRITING = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)


def of_the_system(error: BaseException) -> OSError | None:
    """``error`` as an `OSError`: it is one, or says the number of one, as safetensors' own error does."""
    if isinstance(error, OSError):
        return error
    match = re.search(r"\(os error (\d+)\)", str(error))
    return OSError(int(match[1]), os.strerror(int(match[1]))) if match else None


def explain(error: BaseException, path: Path | None = None) -> UserError | None:
    """Describe ``error`` for a user; None where it is not one of `OUTSIDE`, and so may be a fault of the program.

    ``path`` is named where the error names no file.
    """
    error = of_the_system(error) or error
    if not isinstance(error, OSError) or error.errno not in OUTSIDE:
        return None
    where = error.filename if error.filename is not None else path
    what = f"cannot be {'written' if error.errno in _WRITING else 'used'}: {os.strerror(error.errno)}"
    hint = OUTSIDE[error.errno]
    if where is None:
        return UserError(f"a file or the output {what}", hint=hint)
    return UserError(what, where=os.fsdecode(where).encode("utf-8", "backslashreplace").decode(), hint=hint)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Give an error of the system without a file name, as a full disk raises, the name of ``path``."""
    try:
        yield
    except Exception as error:
        fault = of_the_system(error)
        if fault is not None and fault.filename is None and fault.errno is not None:
            raise OSError(fault.errno, os.strerror(fault.errno), str(path)) from error
        raise


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield a file beside ``path`` to write to; it becomes ``path`` at the end, or is removed on an error.

    The name of the file is short and drawn at random: a long ``path`` leaves room for it, and two processes do not
    write to the same one.
    """
    partial = path.with_name(f".{secrets.token_hex(4)}{PARTIAL}")
    with naming(path):
        try:
            partial.touch(exist_ok=False)
            yield partial
            sync(partial)
            os.replace(partial, path)
            sync(path.parent)
        except OSError as error:
            # The user knows the name that was asked for, not ours.
            if error.filename is not None and os.fspath(error.filename) == str(partial) and error.errno is not None:
                raise OSError(error.errno, os.strerror(error.errno), str(path)) from error
            raise
        finally:
            with suppress(OSError):
                partial.unlink(missing_ok=True)


def probe(path: Path) -> None:
    """Make and remove a file beside ``path``, so that one that cannot be written is known before the work.

    Raises:
        OSError: there is no such folder, it may not be written to, the disk is full, or the name is too long.
    """
    with suppress(FileNotFoundError):
        path.lstat()
    partial = path.with_name(f".{secrets.token_hex(4)}{PARTIAL}")
    try:
        with naming(path):
            partial.write_bytes(b"probe")
    except OSError as error:
        raise OSError(error.errno, os.strerror(error.errno or 0), str(path)) from error
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def write_text(path: Path, text: str, *, errors: str = "strict") -> None:
    """Write ``text`` as ``path``, whole or not at all; for files of a folder that one process writes to.

    What a killed process leaves is ``path`` with ``.partial`` behind it, which the next call uses up. ``errors`` is
    `str.encode`'s, for text that UTF-8 does not have.
    """
    partial = path.with_name(path.name + PARTIAL)
    with naming(path):
        try:
            partial.write_text(text, encoding="utf-8", errors=errors)
            sync(partial)
            os.replace(partial, path)
        except BaseException:
            with suppress(OSError):
                partial.unlink(missing_ok=True)
            raise
    sync(path.parent)


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as ``path``, whole or not at all."""
    write_text(path, json.dumps(value, indent=2) + "\n")


def sync(path: Path) -> None:
    """Have a file's data, or a folder's names, reach the disk; a file system that cannot do so is no error.

    Raises:
        OSError: the disk is full or broken.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except PermissionError:  # a folder on Windows
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO):
            raise OSError(error.errno, os.strerror(error.errno), str(path)) from error
    finally:
        os.close(descriptor)


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    """Read the objects of a file of JSON lines; no file is no lines.

    A line counts once its line break is written: a last one without it was cut short by a crash, and is left out.
    `append_json_line` replaces it.

    Raises:
        UserError: another line is no JSON object; names it.
    """
    if not path.exists():
        return []
    lines = path.read_bytes().split(b"\n")
    values = []
    for number, line in enumerate(lines[:-1], 1):
        try:
            value = json.loads(line)
        except ValueError:
            value = None
        if not isinstance(value, dict):
            raise UserError("cannot be read: the line is no JSON object", where=f"{path}:{number}")
        values.append(value)
    return values


def append_json_line(path: Path, value: Any) -> None:
    """Add ``value`` to a file of JSON lines, in the place of a last line that was cut short."""
    with naming(path), path.open("ab+") as file:
        size = file.seek(0, os.SEEK_END)
        if size:
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                file.seek(0)
                file.truncate(file.read().rfind(b"\n") + 1)
        file.write(json.dumps(value).encode() + b"\n")

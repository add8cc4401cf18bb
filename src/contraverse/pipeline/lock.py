"""One process writes to a folder at a time."""

import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from contraverse.errors import UserError
from contraverse.pipeline.result import Say, silent

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

LOCK = ".lock"
_held = set[int]()


def _let_go() -> None:
    """Close the locks in a forked child, which would otherwise hold them beyond the death of its parent."""
    for descriptor in _held:
        with suppress(OSError):
            os.close(descriptor)
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go)


@contextmanager
def one_writer(folder: Path, *, say: Say = silent) -> Iterator[None]:
    """Make ``folder`` and hold its lock; the system releases it when the process ends, however it ends.

    The lock is an ``flock`` on a file of the folder that says who holds it. On the way out the file is removed, and
    so are the folders that were made here, if nothing has been written to them. A file system without
    locks is reported, and no error.

    Raises:
        UserError: another process holds the lock.
        OSError: the folder cannot be made or written to.
    """
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = None
    try:
        descriptor = _lock(folder, say)
        yield
    finally:
        if descriptor is not None:
            with suppress(OSError):
                (folder / LOCK).unlink()
            _held.discard(descriptor)
            with suppress(OSError):
                os.close(descriptor)
        for path in made:
            try:
                path.rmdir()
            except OSError:  # not empty
                break


@contextmanager
def exclusive(file: Path) -> Iterator[None]:
    """Wait for the lock of ``file``, which is made if there is none, and hold it. A file system may have no locks."""
    with file.open("ab") as opened:
        with suppress(OSError):
            if fcntl is not None:
                fcntl.flock(opened, fcntl.LOCK_EX)
        yield


def _lock(folder: Path, say: Say) -> int:
    path = folder / LOCK
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666)
        try:
            if fcntl is not None:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(descriptor, 4096)
            os.close(descriptor)
            raise UserError(
                f"another process is writing to this folder: {_shown(holder)}",
                where=str(folder),
                hint="wait until it has ended, or choose another --output",
            ) from None
        except OSError as error:  # a network drive without locks
            say(f"  {folder}: this file system has no locks ({error.strerror}); start one run in it at a time")
        # The one that held it may have removed the file between the two calls: then this is the lock of nothing.
        if _is(descriptor, path):
            break
        os.close(descriptor)
    _held.add(descriptor)
    who = {"pid": os.getpid(), "host": socket.gethostname(), "since": time.strftime("%Y-%m-%d %H:%M:%S %z")}
    try:
        os.ftruncate(descriptor, 0)
        os.write(descriptor, json.dumps(who).encode())
    except OSError:
        _held.discard(descriptor)
        os.close(descriptor)
        with suppress(OSError):
            path.unlink()
        raise
    return descriptor


def _is(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _shown(holder: bytes) -> str:
    try:
        who = json.loads(holder)
        return f"process {who['pid']} on {who['host']}, since {who['since']}"
    except (ValueError, KeyError, TypeError):
        return "it does not say which"

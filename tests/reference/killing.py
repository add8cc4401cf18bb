"""Kills a forked child at the n-th change of the disk below a folder, or after a time.

Changes are the files that are opened to be written, renamed, linked and removed, and the folders that are made and
removed; and those that safetensors and torch write past Python, both torn to half and just written.
"""

import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

_CHANGES = ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.link", "os.truncate", "shutil.rmtree")


class Killer:
    """Counts the changes below ``folder``, and kills the process at number ``at`` (from 1; 0: never)."""

    def __init__(self, folder: Path, at: int) -> None:
        self.below, self.at, self.count = str(folder), at, 0
        self.seen: list[str] = []
        sys.addaudithook(self._audit)
        self._wrap(safetensors.torch, "serialize_file", 1)
        self._wrap(torch, "save", 1)

    def _audit(self, event: str, args: tuple[Any, ...]) -> None:
        if event == "open":
            path, mode, flags = args
            writes = bool(flags & (os.O_WRONLY | os.O_RDWR)) if isinstance(flags, int) else "r" not in (mode or "r")
            if writes and isinstance(path, str | bytes):
                self._point(event, path)
        elif event in _CHANGES:
            self._point(event, args[0])

    def _point(self, event: str, path: Any) -> None:
        if not isinstance(path, str | bytes | os.PathLike):
            return
        name = os.fsdecode(path)
        if not os.path.abspath(name).startswith(self.below):
            return
        self.count += 1
        self.seen.append(f"{event} {os.path.relpath(name, self.below)}")
        if self.count == self.at:
            if event == "shutil.rmtree":  # half of it is gone
                for file in [f for f in Path(name).rglob("*") if f.is_file()][::2]:
                    os.unlink(file)
            os.kill(os.getpid(), signal.SIGKILL)

    def _wrap(self, module: Any, name: str, position: int) -> None:
        write = getattr(module, name)

        def wrapped(*args: Any, **kwargs: Any) -> Any:
            done = write(*args, **kwargs)
            path = args[position]
            if isinstance(path, str | os.PathLike) and os.path.abspath(path).startswith(self.below):
                if self.count + 1 == self.at:
                    os.truncate(path, os.path.getsize(path) // 2)
                self._point(f"torn {name}", path)
                self._point(f"after {name}", path)
            return done

        setattr(module, name, wrapped)


def in_child(
    work: Callable[[], object], folder: Path, at: int = 0, after: float | None = None
) -> tuple[str, list[str]]:
    """Do ``work`` in a forked child; ("killed" | "done" | the error, the changes that it made)."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(read)
        code, said = 1, ""
        try:
            torch.manual_seed(random.SystemRandom().randrange(2**31))  # a fresh process would not be where this one is
            killer = Killer(folder, at)
            try:
                work()
                code, said = 0, "\n".join(killer.seen)
            except BaseException as error:
                said = f"{type(error).__name__}: {error}"
            os.write(write, said.encode()[:60_000])
        finally:
            os._exit(code)
    os.close(write)
    if after is not None:
        time.sleep(after)
        os.kill(pid, signal.SIGKILL)
    with os.fdopen(read, "rb") as pipe:
        said = pipe.read().decode()
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        return "killed", []
    return ("done", said.splitlines()) if os.WEXITSTATUS(status) == 0 else (said, [])


def clear(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)

"""Result of a run, and how it shows its progress."""

import json
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Say = Callable[[str], None]
Counting = Callable[[str, int], AbstractContextManager[Callable[[int], None]]]
"""``with counting("Measuring", 500) as progress: progress(64)``: shows how much of a long work is done."""


def silent(line: str) -> None:
    """Say nothing."""


@contextmanager
def uncounted(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show nothing."""
    yield lambda done: None


class Interrupted(Exception):
    """Training was stopped on request; ``checkpoint`` is where it continues, ``signal`` the signal that stopped it."""

    def __init__(self, checkpoint: Path, signal: int = signal.SIGINT) -> None:
        super().__init__(f"stopped; the checkpoint is {checkpoint}")
        self.checkpoint, self.signal = checkpoint, signal

    @property
    def exit_code(self) -> int:
        """Exit code, by the convention of shells: 130 after Ctrl-C, 143 after SIGTERM."""
        return 128 + self.signal


@dataclass(frozen=True)
class RunResult:
    """A finished run.

    ``metrics``: name -> value of the saved model, on ``split``. ``paths``: files and folders in ``folder``, by name.
    """

    folder: Path
    split: str
    metrics: dict[str, float]
    paths: dict[str, Path]
    notes: list[str] = field(default_factory=list)


def read_json(path: Path) -> dict[str, Any]:
    """Read an object that `contraverse.writing.write_json` wrote."""
    value: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return value

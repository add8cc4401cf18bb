"""Results of many rows, computed in parts that are kept on disk until all are there: a run that was stopped goes on."""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from contraverse.cli.console import counting, say
from contraverse.errors import UserError
from contraverse.writing import naming, whole_file, write_json

if TYPE_CHECKING:
    import numpy as np


Resume = Annotated[bool, typer.Option("--resume", help="Go on with what an interrupted command left beside --output.")]
_REQUEST = "request.json"


def in_parts(
    output: Path,
    total: int,
    size: int,
    compute: Callable[[int, int], "np.ndarray"],
    *,
    request: Callable[[], dict[str, Any]],
    resume: bool,
    doing: str,
) -> "Parts":
    """Compute an array (total, ...) for rows 0 to ``total`` in parts of ``size`` rows.

    Of several parts each is a file of the folder ``.OUTPUT.parts`` beside ``output`` as soon as it is computed, so that
    memory holds one of them, and a command that is stopped can be resumed. `Parts.remove` removes them.

    Args:
        output: file that is to be written in the end.
        total: number of rows, at least 1.
        size: rows of a part.
        compute: results (last - first, ...) of the rows from ``first`` to before ``last``.
        request: all that decides the results, as JSON; asked for where there are several parts.
        resume: keep the parts that are there.
        doing: title of the progress bar.

    Raises:
        UserError: with ``resume`` there is nothing to go on with, or it is of another request.
    """
    starts = range(0, total, size)
    parts = Parts(output.with_name(f".{output.name}.parts"), len(starts))
    parts.open(request() if len(starts) > 1 else {}, resume=resume)
    done = sum(parts.has(number) for number in range(len(starts)))
    if done:
        say(f"{min(done * size, total):,} of {total:,} rows were there already")
    with counting(doing, total) as advance:
        try:
            for number, first in enumerate(starts):
                last = min(first + size, total)
                if not parts.has(number):
                    parts.add(number, compute(first, last))
                advance(last - first)
        except KeyboardInterrupt:
            if len(starts) > 1:
                say(f"{sum(map(parts.has, range(len(starts))))} of {len(starts)} parts are kept: --resume goes on")
            raise
    return parts


class Parts:
    """Arrays of a number of parts: of one part in memory, of several in files of a folder."""

    def __init__(self, folder: Path, count: int) -> None:
        self.folder, self.count = folder, count
        self._only: np.ndarray | None = None

    def open(self, request: dict[str, Any], *, resume: bool) -> None:
        """Make the folder, or with ``resume`` check that its parts are of the same ``request``."""
        before = None
        with suppress(OSError, ValueError):
            before = json.loads((self.folder / _REQUEST).read_text(encoding="utf-8"))
        if resume and before is None and self.count > 1:
            raise UserError("there is nothing to resume", where=str(self.folder), hint="leave --resume out")
        if resume and before is not None and before != json.loads(json.dumps(request)):
            other = ", ".join(name for name in request if before.get(name) != request[name])
            raise UserError(
                f"holds parts of another request ({other})",
                where=str(self.folder),
                hint="leave --resume out: begin anew",
            )
        if not resume:
            self.remove()
        if self.count > 1 and not (resume and before is not None):
            with naming(self.folder):
                self.folder.mkdir()
                write_json(self.folder / _REQUEST, request)

    def _file(self, number: int) -> Path:
        return self.folder / f"{number:07d}.npy"

    def has(self, number: int) -> bool:
        """True where the part was computed."""
        return self._only is not None if self.count == 1 else self._file(number).exists()

    def add(self, number: int, array: "np.ndarray") -> None:
        """Keep a part, whole or not at all."""
        import numpy as np

        if self.count == 1:
            self._only = array
            return
        with whole_file(self._file(number)) as partial, partial.open("wb") as file:
            np.save(file, array)

    def __iter__(self) -> Iterator["np.ndarray"]:
        import numpy as np

        for number in range(self.count):
            yield self._only if self._only is not None else np.load(self._file(number), allow_pickle=False)

    def remove(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self.folder, ignore_errors=True)


def digest_of(values: Iterable[str]) -> str:
    """Digest of texts in their order."""
    digest = hashlib.blake2b(digest_size=16)
    for value in values:
        encoded = value.encode("utf-8", "surrogatepass")
        digest.update(len(encoded).to_bytes(8, "little") + encoded)
    return digest.hexdigest()

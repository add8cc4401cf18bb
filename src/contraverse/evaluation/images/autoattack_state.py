"""Progress of `contraverse.evaluation.images.auto_attack` in a file, from which a later call continues."""

import hashlib
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from contraverse.data.images import ImageData
from contraverse.errors import UserError
from contraverse.functional import on_first, writes_files


@dataclass
class State:
    """Rows that each attack broke, by attack and by the first row of a batch; written to ``path`` after each batch."""

    path: Path | None
    call: dict[str, Any]
    broken: dict[str, dict[str, list[int]]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    @classmethod
    def begin(cls, path: str | Path | None, call: dict[str, Any]) -> "State":
        """The state of ``call``, from its file where there is one.

        Raises:
            UserError: the file is of another call, is none of AutoAttack's, or could not be written.
        """
        state = cls._read(path, call)
        state.broken, state.seconds = on_first(lambda: (state.broken, state.seconds))
        return state

    @classmethod
    def _read(cls, path: str | Path | None, call: dict[str, Any]) -> "State":
        state = cls(Path(path) if path else None, call)
        if state.path is None:
            return state
        if not state.path.exists():
            if not state.path.absolute().parent.is_dir():
                raise UserError("its folder does not exist", where=str(path))
            return state
        try:
            stored = json.loads(state.path.read_text(encoding="utf-8"))
            before, state.broken, state.seconds = stored["call"], stored["broken"], stored["seconds"]
            changed = sorted(key for key in call if before.get(key) != call[key])
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError("holds no state of AutoAttack", where=str(path), hint="name another file") from error
        if changed:
            raise UserError(
                f"is the state of a call with another {', '.join(changed)}", where=str(path), hint="name another file"
            )
        return state

    def known(self, attack: str, first: int) -> np.ndarray | None:
        """(B,) bool, None where the batch was not attacked yet."""
        rows = self.broken.get(attack, {}).get(str(first))
        return None if rows is None else np.array(rows, dtype=bool)

    def note(self, attack: str, first: int, broken: np.ndarray, seconds: float) -> None:
        """Add a batch that is attacked; the first process writes the file."""
        self.broken.setdefault(attack, {})[str(first)] = broken.astype(int).tolist()
        self.seconds[attack] = self.seconds.get(attack, 0.0) + seconds
        if self.path is not None and writes_files():
            partial = self.path.with_name(f"{self.path.name}.partial")
            content = {"call": self.call, "broken": self.broken, "seconds": self.seconds}
            partial.write_text(json.dumps(content), encoding="utf-8")
            os.replace(partial, self.path)


def digest_of_data(data: ImageData, labels: Tensor) -> str:
    """A fingerprint of images (N, C, H, W) of bytes and their ``labels`` (N,)."""
    return hashlib.sha256(data.pixels.numpy().tobytes() + labels.numpy().tobytes()).hexdigest()

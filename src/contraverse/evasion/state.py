"""Results of rows in a file of JSON lines, so that an attack goes on from where it was cut short."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from contraverse.errors import UserError
from contraverse.evasion.outcomes import RowResult
from contraverse.functional import on_first, writes_files
from contraverse.writing import append_json_line, read_json_lines


@dataclass
class State:
    """Rows that are settled, by attack; the first line says of which call.

    Args:
        path: the file; it need not be there.
        call: what decides the results: rows, weights, goal, settings, by name.
    """

    path: Path
    call: dict[str, Any]
    _rows: dict[str, dict[int, RowResult]] = field(default_factory=dict)

    @classmethod
    def begin(cls, path: Path, call: dict[str, Any]) -> "State":
        """Open the file, or begin it. A last line that was cut short by a crash is left out.

        Raises:
            UserError: it is of another call, or holds something else.
        """
        state = cls._read(path, call)
        state._rows = on_first(lambda: state._rows)
        return state

    @classmethod
    def _read(cls, path: Path, call: dict[str, Any]) -> "State":
        state = cls(path, call)
        if not path.absolute().parent.is_dir():
            raise UserError("its folder does not exist", where=str(path))
        lines = read_json_lines(path)
        if not lines:
            if writes_files():
                append_json_line(path, {"call": call})
            return state
        before = lines[0].get("call")
        if not isinstance(before, dict):
            raise UserError("holds no results of an attack on texts", where=str(path), hint="name another file")
        changed = sorted(name for name in {*call, *before} if before.get(name) != call.get(name))
        if changed:
            what = f"is of a call with another {', '.join(changed)}"
            raise UserError(what, where=str(path), hint="name another file, or remove this one")
        try:
            for line in lines[1:]:
                result = RowResult(**{**line, "rewritten": line["rewritten"] and tuple(line["rewritten"])})
                state._rows.setdefault(result.by, {})[result.row] = result
        except (KeyError, TypeError) as error:
            raise UserError(
                "holds no results of an attack on texts", where=str(path), hint="name another file"
            ) from error
        return state

    def known(self, attack: str) -> dict[int, RowResult]:
        """Give the results of one attack by row."""
        return dict(self._rows.get(attack, {}))

    def note(self, attack: str, result: RowResult) -> None:
        """Add a row that is settled; the first process writes the file."""
        self._rows.setdefault(attack, {})[result.row] = result
        if writes_files():
            append_json_line(self.path, asdict(result))

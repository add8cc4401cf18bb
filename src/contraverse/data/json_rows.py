"""JSON: one object a line, or one list of objects."""

import json
from pathlib import Path
from typing import Any, Literal, NamedTuple

from contraverse.errors import UserError

_WANTED = "Expected one object a line, or one list of objects"


class JsonRows(NamedTuple):
    """Objects with their numbers, those of lines or of rows by ``unit``; ``faults`` are (number, problem)."""

    objects: list[tuple[int, dict[str, Any]]]
    faults: list[tuple[int, str]]
    unit: Literal["line", "row"]
    blank: int


def read_json(text: str, path: Path, lines: list[str], kind: str) -> JsonRows:
    """Read objects; ``lines`` are those of ``text``, and a list of objects is read of the ``kind`` ".json" alone.

    Raises:
        UserError: the file is one object, of columns or around a list, its objects have several lines, or it is a list
            that is not JSON.
    """
    values: list[tuple[int, Any]] = []
    faults: list[tuple[int, str]] = []
    blank = 0
    unit: Literal["line", "row"] = "line"
    if kind == ".json" and text.lstrip().startswith("["):
        unit = "row"
        try:
            values = list(enumerate(json.loads(text), start=1))
        except (ValueError, RecursionError) as error:
            raise UserError(f"is not JSON: {error}", where=str(path), hint=f"{_WANTED}.") from error
    else:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                blank += 1
                continue
            try:
                values.append((number, json.loads(line)))
            except (ValueError, RecursionError) as error:
                faults.append((number, f"is not JSON ({error})"))
        _refuse_one_object(text, path, values, faults)
    objects = [(number, value) for number, value in values if isinstance(value, dict)]
    faults += [
        (number, f"is a JSON {type(value).__name__}, not an object")
        for number, value in values
        if not isinstance(value, dict)
    ]
    return JsonRows(objects, sorted(faults), unit, blank)


def _refuse_one_object(text: str, path: Path, values: list[tuple[int, Any]], faults: list[tuple[int, str]]) -> None:
    """Refuse JSON that is no rows: tables by column, objects around a list, and objects that take several lines."""
    if faults:
        first, at = _first_value(text)
        if not isinstance(first, dict | list):
            return
        if text[at:].strip():
            if _several(text):
                hint = f"{_WANTED}: jq -c . {path.name} > lines-{path.name}"
                raise UserError("holds objects that take several lines each", where=str(path), hint=hint)
            return
    elif len(values) == 1 and isinstance(values[0][1], dict):
        first = values[0][1]
        nested = [value for value in first.values() if isinstance(value, dict | list)]
        rows = any(isinstance(value, list) and value and isinstance(value[0], dict) for value in nested)
        if not rows and len(nested) < max(1, len(first)):
            return
    else:
        return
    if isinstance(first, list):
        raise UserError(
            "is a list of several lines", where=str(path), hint="Call it X.json: X.jsonl is an object a line."
        )
    inside = [name for name, value in first.items() if isinstance(value, list) and value and isinstance(value[0], dict)]
    if inside:
        hint = f"{_WANTED}; the rows may be those of {inside[0]!r}: jq -c '.{inside[0]}[]' {path.name} > rows.jsonl"
    elif any(isinstance(value, dict | list) for value in first.values()):
        hint = f"{_WANTED}; of pandas: to_json('X.jsonl', orient='records', lines=True)."
    else:
        hint = f"{_WANTED}; this is one row on several lines: jq -c . {path.name} > rows.jsonl"
    raise UserError(
        f"is one JSON object, not rows ({', '.join(map(repr, list(first)[:5]))})", where=str(path), hint=hint
    )


def _first_value(text: str) -> tuple[Any, int]:
    start = len(text) - len(text.lstrip())
    try:
        return json.JSONDecoder().raw_decode(text, start)
    except (ValueError, RecursionError):
        return None, 0


def _several(text: str) -> bool:
    """True where all of ``text`` is objects, one after another."""
    at, decoder = 0, json.JSONDecoder()
    while at < len(text):
        if text[at].isspace():
            at += 1
            continue
        try:
            value, at = decoder.raw_decode(text, at)
        except (ValueError, RecursionError):
            return False
        if not isinstance(value, dict):
            return False
    return True

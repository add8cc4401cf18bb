"""Reading of run folders."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from contraverse.errors import UserError
from contraverse.recipes import notation
from contraverse.writing import read_json_lines


@dataclass(frozen=True)
class Run:
    """A run folder's contents.

    ``config``: config.yaml. ``environment``: environment.json, empty where there is none. ``log``: the lines of
    metrics.jsonl, in order. ``evaluation``: evaluation.json, None while the run is not finished.
    """

    folder: Path
    config: dict[str, Any]
    environment: dict[str, Any]
    log: list[dict[str, Any]]
    evaluation: dict[str, Any] | None


def read_run(folder: str | Path) -> Run:
    """Read a run folder. A last line of metrics.jsonl that was cut short, as a killed run leaves it, is left out.

    Raises:
        UserError: ``folder`` is no run folder (it has no config.yaml), or a file in it cannot be read.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError("there is no such folder", where=str(folder), hint="give the --output of a `contraverse train`")
    if not (folder / "config.yaml").is_file():
        hint = "a run folder holds config.yaml: give the --output of a `contraverse train`"
        inner = sorted(path.parent.name for path in folder.glob("*/config.yaml"))
        hint = f"it holds runs: {', '.join(inner)}" if inner else hint
        raise UserError("not a run folder", where=str(folder), hint=hint)
    made_with, measured = folder / "environment.json", folder / "evaluation.json"
    return Run(
        folder,
        config=_mapping(folder / "config.yaml"),
        environment=_mapping(made_with) if made_with.is_file() else {},
        log=read_json_lines(folder / "metrics.jsonl"),
        evaluation=_mapping(measured) if measured.is_file() else None,
    )


def _mapping(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
        value = json.loads(text) if path.suffix == ".json" else notation.read(text, str(path))
    except UserError:
        raise
    except ValueError as error:
        raise UserError(f"cannot be read: {error}", where=str(path)) from error
    if not isinstance(value, dict):
        raise UserError(f"holds {type(value).__name__}, where names and values were expected", where=str(path))
    return value

"""``metrics.jsonl``: every logged number of a run, one JSON object a line, in the order of steps."""

import json
import math
from pathlib import Path
from typing import Any

from contraverse.writing import naming, write_text


class MetricsLog:
    """Appends rows ``{"step": ..., "epoch": ..., name: value}``; holds no clock times, so that runs compare."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def begin(self, step: int) -> None:
        """Start the file, or on resume keep only the rows up to ``step``: later steps are repeated."""
        rows = [row for row in read_metrics(self.path) if row["step"] <= step] if step else []
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_text(self.path, "".join(json.dumps(row) + "\n" for row in rows))

    def add(self, step: int, epoch: float | None, values: dict[str, Any]) -> None:
        # NaN and infinity are not JSON: a reader that is not Python would stop at them.
        clean = {k: v if not isinstance(v, float) or math.isfinite(v) else None for k, v in values.items()}
        with naming(self.path), self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, "epoch": epoch, **clean}) + "\n")


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The rows of a ``metrics.jsonl``; a last line cut short by a crash is left out; no file is no rows."""
    if not path.is_file():
        return []
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return rows

"""``metrics.jsonl``: every logged number of a run, one JSON object a line, in the order of steps."""

import json
import math
import os
from pathlib import Path
from typing import Any


class MetricsLog:
    """Appends rows ``{"step": ..., "epoch": ..., name: value}``; holds no clock times, so that runs compare."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def begin(self, step: int) -> None:
        """Start the file, or on resume keep only what was written up to ``step``: the rest is done again."""
        rows = [row for row in read_metrics(self.path) if row["step"] <= step] if step else []
        self.path.parent.mkdir(parents=True, exist_ok=True)
        partial = self.path.with_suffix(".partial")
        partial.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        os.replace(partial, self.path)

    def add(self, step: int, epoch: float | None, values: dict[str, Any]) -> None:
        # NaN and infinity are not JSON: a reader that is not Python would stop at them.
        clean = {k: v if not isinstance(v, float) or math.isfinite(v) else None for k, v in values.items()}
        with self.path.open("a", encoding="utf-8") as file:
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

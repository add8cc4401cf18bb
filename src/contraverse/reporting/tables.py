"""Tables of mean and standard deviation over runs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from statistics import mean, stdev
from typing import Any, Literal

import rich.table
from rich.text import Text

from contraverse.errors import UserError
from contraverse.evaluation.keys import MetricKey
from contraverse.reporting.names import MISSING, heading

Key = str | MetricKey
Best = Mapping[str, Literal["highest", "lowest"]]
"""Metrics whose best value is marked, and the direction that is best."""


@dataclass(frozen=True)
class Cell:
    """``n`` values' mean and sample standard deviation (ddof=1), which one value does not have."""

    mean: float
    sd: float | None
    n: int

    @classmethod
    def of(cls, values: Sequence[float]) -> "Cell | None":
        """The cell of ``values``; None where there are none."""
        return cls(mean(values), stdev(values) if len(values) > 1 else None, len(values)) if values else None

    def text(self, digits: int = 1) -> str:
        """``76.0 ± 1.2``."""
        return f"{self.mean:.{digits}f}" + ("" if self.sd is None else f" ± {self.sd:.{digits}f}")


@dataclass(frozen=True)
class Row:
    """One group: the ``by`` values that its ``n`` runs share, and a cell a metric (None: measured by no run)."""

    key: tuple[str, ...]
    n: int
    cells: Mapping[Key, Cell | None]

    def text(self, metric: Key, digits: int = 1) -> str:
        """A cell as printed; ``(n=3)`` follows where only some of the group's runs hold the metric."""
        cell = self.cells[metric]
        if cell is None:
            return MISSING
        return cell.text(digits) + (f" (n={cell.n})" if cell.n != self.n else "")


@dataclass(frozen=True)
class Table:
    """Groups of runs (rows) by metrics (columns). Made by `summarise`."""

    by: tuple[str, ...]
    metrics: tuple[Key, ...]
    rows: tuple[Row, ...]

    def best(self, metric: Key, which: Literal["highest", "lowest"], digits: int = 1) -> set[int]:
        """Numbers of the rows with the best mean as printed: several where they tie."""
        means = {i: round(cell.mean, digits) for i, row in enumerate(self.rows) if (cell := row.cells[metric])}
        top = (max if which == "highest" else min)(means.values(), default=None)
        return {i for i, value in means.items() if value == top}

    def markdown(self, *, digits: int = 1, bold: Best | None = None) -> str:
        """A Markdown table, its source aligned; the best of the metrics in ``bold`` in bold type."""
        lines = [list(map(_escape, self.header()))]
        for cells, marked in self._body(digits, bold):
            lines.append([f"**{_escape(c)}**" if m else _escape(c) for c, m in zip(cells, marked, strict=True)])
        widths = [max(3, *map(len, column)) for column in zip(*lines, strict=True)]
        left = len(self.by)
        rule = ["-" * w if i < left else "-" * (w - 1) + ":" for i, w in enumerate(widths)]
        aligned = [
            [cell.ljust(w) if i < left else cell.rjust(w) for i, (cell, w) in enumerate(zip(line, widths, strict=True))]
            for line in lines
        ]
        return "\n".join(f"| {' | '.join(line)} |" for line in [aligned[0], rule, *aligned[1:]]) + "\n"

    def rich(self, *, digits: int = 1, bold: Best | None = None, title: str | None = None) -> rich.table.Table:
        """The same for a terminal."""
        table = rich.table.Table(title=Text(title) if title else None, title_justify="left")
        for i, name in enumerate(self.header()):
            table.add_column(Text(name), justify="left" if i < len(self.by) else "right")
        for cells, marked in self._body(digits, bold):
            table.add_row(*(Text(c, style="bold" if m else "") for c, m in zip(cells, marked, strict=True)))
        return table

    def header(self) -> list[str]:
        """The columns' names."""
        return [*self.by, "n", *map(heading, self.metrics)]

    def _body(self, digits: int, bold: Best | None) -> list[tuple[list[str], list[bool]]]:
        best: dict[Key, set[int]] = {metric: self.best(metric, which, digits) for metric, which in (bold or {}).items()}
        plain = [False] * (len(self.by) + 1)
        return [
            (
                [*row.key, str(row.n), *(row.text(metric, digits) for metric in self.metrics)],
                plain + [i in best.get(metric, ()) for metric in self.metrics],
            )
            for i, row in enumerate(self.rows)
        ]


def summarise(rows: Sequence[Mapping[Any, Any]], by: Sequence[str], metrics: Sequence[Key]) -> Table:
    """Group ``rows`` (one a run) by the columns ``by``, and take each metric's mean and standard deviation.

    Groups come in the order in which they first occur. A metric that a row lacks, or holds as None, NaN or infinity,
    is missing there: it does not enter the mean, and a group without any value prints ``-``.

    Raises:
        UserError: no row holds a column of ``by``.
    """
    for column in by:
        if rows and not any(column in row for row in rows):
            known = ", ".join(dict.fromkeys(str(key) for row in rows for key in row))
            raise UserError(f"no run has a column {column!r}", hint=f"columns: {known}")
    groups: dict[tuple[str, ...], list[Mapping[Any, Any]]] = {}
    for row in rows:
        groups.setdefault(tuple(_key(row.get(column)) for column in by), []).append(row)
    return Table(
        tuple(by),
        tuple(metrics),
        tuple(
            Row(key, len(group), {metric: Cell.of(_values(group, metric)) for metric in metrics})
            for key, group in groups.items()
        ),
    )


def _key(value: object) -> str:
    return MISSING if value is None else str(value)


def _values(rows: Sequence[Mapping[Any, Any]], metric: Key) -> list[float]:
    values = [float(row[metric]) for row in rows if row.get(metric) is not None]
    return [value for value in values if isfinite(value)]


def _escape(text: str) -> str:
    return " ".join(text.split()).replace("\\", "\\\\").replace("|", "\\|")

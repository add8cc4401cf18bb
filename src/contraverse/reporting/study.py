"""Tables of a study: means, deviations, and paired differences with interval, test and power."""

import csv
import io
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from contraverse.evaluation.keys import MetricKey
from contraverse.evaluation.metrics import TABLE
from contraverse.evaluation.paired import PairedDifference, holm, paired_difference, unpack_rows
from contraverse.reporting.names import MISSING, heading

Line = Mapping[str, Any]
Printed = Mapping[str, Mapping[str, float]]
"""Figures of a paper by label and metric."""


@dataclass(frozen=True)
class Mean:
    """Mean of a metric over seeds, with the sample standard deviation (None of one seed)."""

    method: str
    metric: str
    mean: float
    deviation: float | None
    seeds: int

    def __str__(self) -> str:
        digits = _digits(self.metric)
        return f"{self.mean:.{digits}f}" + (f" ± {self.deviation:.{digits}f}" if self.deviation is not None else "")


@dataclass(frozen=True)
class Comparison:
    """One method less another on a metric; ``corrected``: the p-value by Holm over the table."""

    first: str
    second: str
    metric: str
    paired: PairedDifference
    corrected: float

    def __str__(self) -> str:
        known = not np.isnan(self.paired.low)
        return interval(self.paired, self.metric) + (f", p {_p(self.corrected)}" if known else "")


def interval(paired: PairedDifference, metric: str) -> str:
    """``"+2.1 [+0.4, +3.8]"``; of a single figure the difference alone."""
    digits = _digits(metric)
    ends = "" if np.isnan(paired.low) else f" [{paired.low:+.{digits}f}, {paired.high:+.{digits}f}]"
    return f"{paired.difference:+.{digits}f}{ends}"


@dataclass(frozen=True)
class StudyTable:
    """The test stage of a study on one task; ``printed``: figures of a paper by label and metric."""

    task: str
    metrics: tuple[str, ...]
    methods: tuple[str, ...]
    settings: dict[str, dict[str, Any]]
    means: dict[tuple[str, str], Mean]
    comparisons: list[Comparison]
    printed: Printed = field(default_factory=dict)


def tabulate(
    lines: Sequence[Line],
    task: str,
    pairs: Sequence[tuple[str, str]],
    methods: Sequence[str],
    metrics: Sequence[str] | None = None,
    printed: Printed | None = None,
) -> StudyTable:
    """The table of ``task`` from finished lines of the test stage.

    Args:
        lines: results, see `contraverse.pipeline.study.train_cell`.
        pairs: labels to compare, the second subtracted from the first.
        methods: labels in the order of the table; those without a line and a printed figure are left out.
        metrics: columns; None for all that a line has.
        printed: figures of a paper, shown beside ours and marked.
    """
    printed = printed or {}
    mine = [line for line in lines if line["task"] == task and line["stage"] == "test"]
    by_method = {label: [line for line in mine if line["method"] == label] for label in methods}
    by_method = {label: sorted(own, key=lambda line: line["seed"]) for label, own in by_method.items() if own}
    names = tuple(metrics or dict.fromkeys(name for line in mine for name in line["metrics"]))
    means = {
        (label, name): _mean(label, name, [line["metrics"][name] for line in own if name in line["metrics"]])
        for label, own in by_method.items()
        for name in names
        if any(name in line["metrics"] for line in own)
    }
    compared = [
        (first, second, name, paired)
        for first, second in pairs
        for name in names
        if (paired := _paired(by_method.get(first, []), by_method.get(second, []), name)) is not None
    ]
    corrected = holm([paired.p_value for *_, paired in compared])
    comparisons = [Comparison(*parts, p) for parts, p in zip(compared, corrected, strict=True)]
    settings = {label: own[0]["settings"] for label, own in by_method.items()}
    shown = tuple(label for label in methods if label in by_method or (mine and label in printed))
    return StudyTable(task, names, shown, settings, means, comparisons, printed)


def _mean(label: str, metric: str, values: Sequence[float]) -> Mean:
    deviation = statistics.stdev(values) if len(values) > 1 else None
    return Mean(label, metric, statistics.mean(values), deviation, len(values))


def _paired(first: Sequence[Line], second: Sequence[Line], metric: str) -> PairedDifference | None:
    """Over the seeds that both have: by row in percent where the rows are known, else by the metric itself."""
    others = {line["seed"]: line for line in second}
    both = [(line, others[line["seed"]]) for line in first if line["seed"] in others]
    both = [(a, b) for a, b in both if metric in a["metrics"] and metric in b["metrics"]]
    if not both:
        return None
    if all(metric in line["right"] for pair in both for line in pair):
        rows = [[100.0 * unpack_rows(line["right"][metric]) for line in pair] for pair in both]
        if len({len(row) for pair in rows for row in pair}) == 1:
            return paired_difference(*(np.stack(side) for side in zip(*rows, strict=True)))
    scores = np.array([[line["metrics"][metric] for line in pair] for pair in both])  # (S, 2)
    return paired_difference(scores[:, :1], scores[:, 1:])


def markdown(table: StudyTable, *, level: int = 3) -> str:
    """The table and its comparisons, a paper's figures marked as printed; ``level``: of the task's heading."""
    header = ["method", "seeds", *map(heading, table.metrics)]
    rows = []
    for label in table.methods:
        own = [table.means.get((label, name)) for name in table.metrics]
        cells = [MISSING if cell is None else str(cell) for cell in own]
        for i, name in enumerate(table.metrics):
            if (value := table.printed.get(label, {}).get(name)) is not None:
                cells[i] += f" (printed {value:g})"
        rows.append([label, str(max((cell.seeds for cell in own if cell is not None), default=0)), *cells])
    parts = [f"{'#' * level} {table.task}\n", grid(header, rows)]
    if chosen := [_selected(label, table.settings[label]) for label in table.settings if table.settings[label]]:
        parts += ["", f"Selected: {'; '.join(chosen)}."]
    if table.comparisons:
        header = ["difference", *map(heading, table.metrics), "seeds x rows", "detectable"]
        compared = []
        for pair in dict.fromkeys((c.first, c.second) for c in table.comparisons):
            own_pairs = {c.metric: c for c in table.comparisons if (c.first, c.second) == pair}
            sizes = dict.fromkeys(f"{c.paired.seeds} x {c.paired.rows}" for c in own_pairs.values())
            least = [c.paired.detectable for c in own_pairs.values() if _digits(c.metric) == 1]
            least = [value for value in least if not np.isnan(value)]
            span = f"{min(least):.1f} to {max(least):.1f}" if least else MISSING
            cells = [str(own_pairs[name]) if name in own_pairs else MISSING for name in table.metrics]
            compared.append([" - ".join(pair), *cells, ", ".join(sizes), span])
        parts += ["", grid(header, compared)]
    return "\n".join(parts) + "\n"


def latex(table: StudyTable) -> str:
    """Means and deviations as a tabular environment of booktabs."""
    head = " & ".join(["method", *(heading(name).replace("%", r"\%") for name in table.metrics)])
    lines = [rf"\begin{{tabular}}{{l{'r' * len(table.metrics)}}}", r"\toprule", head + r" \\", r"\midrule"]
    for label in table.methods:
        own = [table.means.get((label, name)) for name in table.metrics]
        cells = ["--" if cell is None else str(cell).replace("±", r"$\pm$") for cell in own]
        lines.append(" & ".join([label.replace("_", r"\_"), *cells]) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"


def csv_lines(tables: Sequence[StudyTable]) -> str:
    """Every mean and every comparison, one a row."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["task", "metric", "method", "baseline", "value", "deviation", "low", "high", "p", "p_holm", "n"])
    for table in tables:
        for mean in table.means.values():
            writer.writerow(
                [table.task, mean.metric, mean.method, "", mean.mean, mean.deviation, *[""] * 4, mean.seeds]
            )
        for c in table.comparisons:
            d = c.paired
            row = [table.task, c.metric, c.first, c.second, d.difference, "", d.low, d.high, d.p_value, c.corrected]
            writer.writerow([*row, d.seeds])
    return out.getvalue()


def _selected(label: str, settings: Mapping[str, Any]) -> str:
    """``"at: epsilon 0.3"``, settings by their last name."""
    return f"{label}: " + ", ".join(f"{name.rpartition('.')[2]} {value}" for name, value in settings.items())


def _digits(metric: str) -> int:
    """Digits after the point: one of figures in percent, three of cosines and distances."""
    return 1 if MetricKey.read(metric).metric in TABLE else 3


def _p(value: float) -> str:
    return "< .001" if value < 0.001 else f"{value:.3f}".lstrip("0") if value < 1 else "1"


def grid(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Table in Markdown."""
    lines = [" | ".join(header), " | ".join("---" for _ in header), *(" | ".join(row) for row in rows)]
    return "\n".join(f"| {line} |" for line in lines)

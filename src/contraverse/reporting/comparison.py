"""Comparison of runs: rows of its tables, for the terminal and for a page."""

from collections.abc import Mapping, Sequence
from typing import Any

from contraverse.reporting.names import heading, label
from contraverse.reporting.noise_map import interval_text
from contraverse.reporting.templates import template


def comparison_rows(comparison: Mapping[str, Any], by: str | None) -> list[Sequence[str]]:
    """Rows of a table: measure or slice, rows, each run's rate, and each run's difference to the first with its test.

    Args:
        comparison: as ``contraverse compare`` writes it to JSON.
        by: column of the slices; None for all rows.
    """
    _, *others = comparison["runs"]
    rows = list[Sequence[str]]()
    for part in comparison["comparisons"]:
        if part["by"] != by:
            continue
        name = heading(part["measure"]) if by is None else f"{part['value'] or '(empty)'}, {label(part['measure'])}"
        rates = (_percent(part["rates"][run]) for run in comparison["runs"])
        tests = (paired_text(part["tests"].get(run)) for run in others)
        rows.append((name, f"{part['rows']:,}", *rates, *tests))
    return rows


def table_header(comparison: Mapping[str, Any], by: str | None) -> tuple[str, ...]:
    """Columns of `comparison_rows`."""
    first, *others = comparison["runs"]
    return (by or "", "Rows", first, *others, *(f"{run} - {first}" for run in others))


def paired_text(test: Mapping[str, Any] | None) -> str:
    """A difference with its interval, rows gained and lost, and McNemar's p-value corrected by Holm."""
    if test is None:
        return "too few rows"
    p_value = "< .001" if test["p_holm"] < 0.001 else f"{test['p_holm']:.3f}".removeprefix("0")
    return f"{interval_text(test['difference'])}, +{test['gained']} -{test['lost']}, p {p_value}"


def _percent(value: float) -> str:
    return f"{value:.1f}"


def comparison_page(comparison: Mapping[str, Any]) -> str:
    """The comparison as one HTML file that asks nothing of the network; every name in it is escaped."""
    tables = [
        {"title": "All rows" if by is None else f"By {by}", "header": table_header(comparison, by), "rows": rows}
        for by in (None, *comparison["by"])
        if (rows := comparison_rows(comparison, by))
    ]
    return template("comparison.html.j2", escape=True).render(comparison=comparison, tables=tables, note=NOTE)


NOTE = (
    "Differences are to the first run, in points, on the same rows, with 95 % paired bootstrap intervals over rows. "
    "+a -b: rows that this run alone has right, and that the first alone has; of false positives, fewer are better. "
    "p: McNemar's exact test, corrected by Holm over the runs of a measure, and over its slices. Slices of "
    "fewer than 10 rows are not tested. None of it says how other seeds of training would do."
)

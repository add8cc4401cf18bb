"""Section of a report: worst cases of texts."""

from collections.abc import Mapping
from typing import Any

from contraverse.reporting.data import ReportData
from contraverse.reporting.names import MISSING
from contraverse.reporting.sections import Section, draw


def evasion(data: ReportData) -> Section | None:
    """Rates under attacks on texts as texts, a row for each run, attack and budget."""
    if not data.evasion:
        return None
    several = len(data.evasion) > 1
    header = ("Attack", "Budget", "n", "Accuracy", "Flip rate", "95 %", "Queries")
    attacks = [(run, name, report) for run, reports in data.evasion.items() for name, report in reports.items()]
    rows = [row for run, name, report in attacks for row in _rows(f"{run}, {name}" if several else name, report)]
    notes = [
        "Worst case of each row: a text within the budget that the classifier, asked anew, gets wrong. Flip rate: of "
        "the rows that were right."
    ]
    notes += [f"To be doubted: {warning}." for _, _, report in attacks for warning in report["warnings"]]
    return Section("Attacks on texts as texts", draw("grid", header=header, rows=rows, note=" ".join(notes)), wide=True)


def _rows(name: str, report: Mapping[str, Any]) -> list[tuple[str, ...]]:
    clean = report["clean"]["accuracy"]
    against = f", against {report['against']}" if report["against"] is not None else ""
    queries = MISSING if report["queries"] is None else f"{report['queries']:.0f}"
    rows: list[tuple[str, ...]] = [
        (name + against, "clean", str(clean["n"]), _percent(clean["percent"]), MISSING, MISSING, queries)
    ]
    for at in report["at"]:
        rate = at["flip_rate"]
        interval = MISSING if rate["low"] is None else f"{rate['low']:.1f} to {rate['high']:.1f}"
        budget = f"{at['budget']} {report['unit']}"
        figures = (_percent(at["accuracy"]["percent"]), _percent(rate["percent"]), interval, "")
        rows.append(("", budget, str(rate["n"]), *figures))
    return rows


def _percent(value: float | None) -> str:
    return MISSING if value is None else f"{value:.1f}"

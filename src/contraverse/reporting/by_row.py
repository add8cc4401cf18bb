"""Figures by row: the most confident mistakes, and the rows that broke at the smallest radius."""

from collections.abc import Mapping
from typing import Any

from contraverse.reporting.data import ReportData
from contraverse.reporting.sections import LONGEST_TEXT, Section, draw
from contraverse.units import shown


def mistakes(data: ReportData) -> Section | None:
    """Rows that one run predicts wrongly without an attack, the most confident prediction first."""
    note = "Without an attack; with the probability that the model gives its prediction."
    return _rows(data, "mistakes", "Wrong with the highest confidence", note)


def fragile(data: ReportData) -> Section | None:
    """Rows that one run predicts rightly and that broke, at the smallest radius first."""
    note = "Right without an attack, with the probability given; broken at the size ε, and the class predicted there."
    return _rows(data, "fragile", "Broken at the smallest size", note)


def _rows(data: ReportData, kind: str, title: str, note: str) -> Section | None:
    if len(data.breakdowns) != 1:
        return None
    (breakdown,) = data.breakdowns.values()
    rows = [_row(row) for row in breakdown[kind]]
    return Section(title, draw("rows", rows=rows, note=note, longest=LONGEST_TEXT), wide=True) if rows else None


def _row(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "texts": row.get("texts", ()),
        "image": row.get("image"),
        "label": row["label"],
        "predicted": row["predicted"],
        "confidence": f"{100 * row['confidence']:.1f}",
        "attacked": row.get("attacked"),
        "epsilon": shown(row["epsilon"]) if "epsilon" in row else None,
    }

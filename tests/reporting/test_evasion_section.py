"""The report's section on attacks on texts."""

from contraverse.evasion import EvasionReport, RowResult
from contraverse.reporting.data import ReportData
from contraverse.reporting.figures import Measured
from contraverse.reporting.html import render_report


def test_rates_of_each_budget_and_doubts_are_shown() -> None:
    rows = [
        RowResult(i, i % 2, i % 2, True, True, changes, ("x",), 1 - i % 2, 7) for i, changes in enumerate((1, 2, None))
    ]
    report = EvasionReport("edits", "character edits", (1, 2), ["no", "yes"], None, rows, [("a <b>",)] * 3)
    report.warnings.append("chance does as much")
    page = render_report(
        ReportData("A run", [Measured("ce", {"accuracy": 100.0})], evasion={"edits": report.to_dict()})
    )
    assert "Attacks on texts as texts" in page
    assert "2 character edits" in page
    assert "66.7" in page
    assert "To be doubted: chance does as much." in page
    assert "Attacks on texts" not in render_report(ReportData("A run", [Measured("ce", {"accuracy": 100.0})]))

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
        ReportData("A run", [Measured("ce", {"accuracy": 100.0})], evasion={"ce": {"edits": report.to_dict()}})
    )
    assert "Attacks on texts as texts" in page
    assert "2 character edits" in page
    assert "66.7" in page
    assert "ce, edits" not in page
    assert "To be doubted: chance does as much." in page
    assert "Attacks on texts" not in render_report(ReportData("A run", [Measured("ce", {"accuracy": 100.0})]))


def test_several_runs_are_named_in_each_row() -> None:
    rows = [RowResult(0, 0, 0, True, True, 1, ("x",), 1, 7)]
    report = EvasionReport("edits", "character edits", (1,), ["no", "yes"], None, rows, [("a",)]).to_dict()
    runs = [Measured(name, {"accuracy": 100.0}) for name in ("ce", "scal")]
    page = render_report(ReportData("Runs", runs, evasion={name: {"edits": report} for name in ("ce", "scal")}))
    assert "ce, edits" in page
    assert "scal, edits" in page

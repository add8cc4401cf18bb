import statistics
from io import StringIO
from math import inf, nan

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from contraverse.errors import UserError
from contraverse.reporting import summarise
from contraverse.reporting.tables import Cell

ROWS = [
    {"method": "ce", "seed": 1, "accuracy": 96.0, "error_rate": 4.0},
    {"method": "scal", "seed": 1, "accuracy": 97.0, "error_rate": 3.0},
    {"method": "ce", "seed": 2, "accuracy": 94.0, "error_rate": 6.0},
    {"method": "scal", "seed": 2, "accuracy": 99.0},
]


def printed(table, **settings) -> list[list[str]]:
    lines = table.markdown(**settings).splitlines()
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


def test_mean_and_sample_standard_deviation() -> None:
    assert printed(summarise(ROWS, ["method"], ["accuracy"])) == [
        ["method", "n", "Accuracy"],
        ["------", "--:", "---------:"],
        ["ce", "2", "95.0 ± 1.4"],  # sqrt(2), where ddof=0 would give 1.0
        ["scal", "2", "98.0 ± 1.4"],
    ]


@given(st.lists(st.floats(0, 100), min_size=2, max_size=9))
def test_against_numpy(values: list[float]) -> None:
    cell = summarise([{"m": "a", "x": value} for value in values], ["m"], ["x"]).rows[0].cells["x"]
    assert cell is not None
    np.testing.assert_allclose((cell.mean, cell.sd), (np.mean(values), np.std(values, ddof=1)), atol=1e-9)


def test_one_value_has_no_standard_deviation() -> None:
    assert printed(summarise(ROWS[:1], ["method"], ["accuracy"]))[2] == ["ce", "1", "96.0"]


def test_missing_is_a_dash_and_never_zero() -> None:
    rows = [{"method": "ce", "accuracy": 96.0}, {"method": "scal", "accuracy": None}]
    assert printed(summarise(rows, ["method"], ["accuracy", "f1"]))[2:] == [
        ["ce", "1", "96.0", "-"],
        ["scal", "1", "-", "-"],
    ]


def test_a_zero_is_a_value() -> None:
    assert printed(summarise([{"method": "ce", "accuracy": 0.0}], ["method"], ["accuracy"]))[2][2] == "0.0"


@pytest.mark.parametrize("lost", [None, nan, inf])
def test_a_value_that_some_runs_lack_does_not_enter_the_mean_and_is_said(lost: float | None) -> None:
    rows = [{"m": "a", "x": 1.0}, {"m": "a", "x": 3.0}, {"m": "a", "x": lost}]
    assert printed(summarise(rows, ["m"], ["x"]))[2] == ["a", "3", "2.0 ± 1.4 (n=2)"]


def test_groups_by_several_columns_in_the_order_of_the_rows() -> None:
    rows = [{"task": t, "method": m, "x": 1.0} for t in ("trec", "cola") for m in ("scal", "ce")]
    keys = [row.key for row in summarise(rows, ["task", "method"], ["x"]).rows]
    assert keys == [("trec", "scal"), ("trec", "ce"), ("cola", "scal"), ("cola", "ce")]


def test_a_row_without_a_group_is_a_group_of_its_own() -> None:
    rows = [{"method": "ce", "x": 1.0}, {"x": 2.0}]
    assert [row.key for row in summarise(rows, ["method"], ["x"]).rows] == [("ce",), ("-",)]


def test_an_unknown_column_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(UserError, match=r"'recipe'[\s\S]*method, seed, accuracy"):
        summarise(ROWS, ["recipe"], ["accuracy"])


def test_no_runs_no_rows() -> None:
    assert len(printed(summarise([], ["method"], ["accuracy"]))) == 2


def test_bold_only_when_asked() -> None:
    table = summarise(ROWS, ["method"], ["accuracy", "error_rate"])
    assert "**" not in table.markdown()
    bold = printed(table, bold={"accuracy": "highest", "error_rate": "lowest"})
    assert bold[2] == ["ce", "2", "95.0 ± 1.4", "5.0 ± 1.4"]
    assert bold[3] == ["scal", "2", "**98.0 ± 1.4**", "**3.0 (n=1)**"]


def test_bold_marks_all_that_tie_as_printed_and_nothing_missing() -> None:
    rows = [{"m": "a", "x": 96.42}, {"m": "b", "x": 96.38}, {"m": "c", "x": 90.0}, {"m": "d"}]
    table = summarise(rows, ["m"], ["x", "y"])
    assert [row[2] for row in printed(table, bold={"x": "highest"})[2:]] == ["**96.4**", "**96.4**", "90.0", "-"]
    assert [row[2] for row in printed(table, bold={"x": "highest"}, digits=2)[2:]] == [
        "**96.42**",
        "96.38",
        "90.00",
        "-",
    ]
    assert "**" not in table.markdown(bold={"y": "lowest"})


def test_markdown_keeps_its_columns_whatever_names_hold() -> None:
    table = summarise([{"m": "a|b\nc", "x": 1.0}], ["m"], ["x"])
    header, _, line = table.markdown().splitlines()
    assert line.startswith("| a\\|b c |")
    assert len(header) == len(line)


def test_attacked_figures_have_readable_heads() -> None:
    assert summarise([], ["m"], ["accuracy@pgd-0.3"]).header() == ["m", "n", "Accuracy, PGD ε=0.3"]


def test_rich_prints_the_same_cells_and_takes_no_markup_from_names() -> None:
    console = Console(width=100, color_system="truecolor", force_terminal=True, record=True, file=StringIO())
    table = summarise([{"m": "[red]x[/red]", "accuracy": 96.0}, {"m": "y", "accuracy": None}], ["m"], ["accuracy"])
    console.print(table.rich(bold={"accuracy": "highest"}, title="[b]T"))
    text = console.export_text(clear=False)
    assert "[red]x[/red]" in text
    assert "[b]T" in text
    assert "96.0" in text
    assert [line.split("│")[-2].strip() for line in text.splitlines() if "y" in line and "│" in line][-1] == "-"
    assert "\x1b[1m96.0" in console.export_text(styles=True).replace(" ", "")


def test_cell_text() -> None:
    assert Cell(1.25, 0.5, 2).text(digits=2) == "1.25 ± 0.50"
    assert Cell.of([]) is None
    assert Cell.of([1.0, 2.0]) == Cell(1.5, statistics.stdev([1, 2]), 2)

"""The HTML report of a study: what is drawn, what is marked as printed, and that names stay text."""

import re
from typing import Any

import pytest

from contraverse.reporting.study import StudyTable, tabulate
from contraverse.reporting.study_html import bands, html, power, trade_off

METRICS = ("accuracy", "accuracy@apgd-0.1", "accuracy@apgd-0.3")


def line(method: str, seed: int, *values: float) -> dict[str, Any]:
    return {
        "stage": "test",
        "task": "text",
        "method": method,
        "settings": {},
        "seed": seed,
        "metrics": dict(zip(METRICS, values, strict=False)),
        "right": {},
    }


def table(*extra: dict[str, Any], printed: Any = None) -> StudyTable:
    lines = [line("ce", seed, 90.0 + seed, 60.0 - seed, 20.0) for seed in (1, 2, 3)]
    lines += [line("<b>at", seed, 88.0 + seed, 75.0 + seed, 50.0) for seed in (1, 2, 3)]
    return tabulate([*lines, *extra], "text", [("<b>at", "ce")], ["ce", "<b>at", "clean"], printed=printed)


def test_the_page_holds_tables_figures_and_what_is_printed() -> None:
    page = html([table(printed={"ce": {"accuracy": 91.5}})], name="tiny", question="Does it help?")
    assert page.count("<svg ") == 3
    assert '<span class="printed">printed 91.5</span>' in page
    assert "92.0 ± 1.0" in page
    assert "&lt;b&gt;at - ce" in page
    assert "<b>at" not in page
    assert not re.search(r"(src|href)=\"http|<script|url\(http", page)


def test_a_band_spans_one_deviation_and_a_printed_point_is_hollow() -> None:
    drawn = bands(table())
    assert drawn is not None
    assert drawn.count("fill-opacity: 0.15") == 2
    ours = trade_off(table())
    theirs = trade_off(table(printed={"ce": {"accuracy": 95.0, "accuracy@apgd-0.3": 30.0}}))
    assert ours is not None
    assert theirs is not None
    assert theirs.count("<use ") > ours.count("<use ")


def test_a_method_that_was_not_attacked_is_in_the_table_alone() -> None:
    page = html([table(line("clean", 1, 70.0))], name="tiny", question="?")
    assert page.count(">70.0") == 1
    assert "<td>-</td>" in page


@pytest.mark.parametrize("draw", [trade_off, bands, power])
def test_without_an_attack_there_is_nothing_to_draw(draw: Any) -> None:
    bare = tabulate([line("ce", 1, 70.0)], "text", [], ["ce"])
    assert draw(bare) is None
    assert "<svg" not in html([bare], name="tiny", question="?")


def test_power_has_a_line_a_comparison_and_nothing_is_told_by_one_seed() -> None:
    drawn = power(table())
    assert drawn is not None
    assert "Detectable difference of Accuracy, APGD" in drawn
    single = tabulate([line("ce", 1, 70.0), line("at", 1, 71.0)], "text", [("at", "ce")], ["ce", "at"])
    assert power(single) is None

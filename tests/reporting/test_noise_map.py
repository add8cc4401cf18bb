"""The picture of noise: figures, colours, and what stays out of it."""

import re
from typing import Any
from xml.etree import ElementTree

import pytest

from contraverse.reporting.noise_map import interval_text, noise_map, noise_rows


def cell(kind: str, strength: int, value: float, untouched: int = 0) -> dict[str, Any]:
    difference = {"value": value - 80, "low": value - 82, "high": value - 78}
    return {"kind": kind, "strength": strength, "value": value, "difference": difference, "untouched": untouched}


def result(metric: str = "accuracy") -> dict[str, Any]:
    cells = [cell("keyboard", 1, 78.0), cell("keyboard", 5, 60.0), cell("leet", 1, 80.0, 50), cell("leet", 5, 80.0, 50)]
    return {"metric": metric, "clean": 80.0, "rows": 50, "mean": {"value": 69.0}, "cells": cells}


def test_the_picture_is_xml_that_asks_nothing_of_the_network() -> None:
    svg = noise_map(result())
    texts = [element.text for element in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]
    assert texts == ["1", "5", "mean", "keyboard", "78.0", "60.0", "69.0", "leet", "-", "-", "-", "mean of all", "69.0"]
    assert re.findall(r"https?://[^\"]*", svg) == ["http://www.w3.org/2000/svg"]
    assert "<title>accuracy by kind and strength of noise; clean 80.0</title>" in svg


@pytest.mark.parametrize(("metric", "colour"), [("accuracy", "#d9480f"), ("error_rate", "#1971c2")])
def test_the_darker_the_farther_and_red_is_worse(metric: str, colour: str) -> None:
    fills = re.findall(r'fill="(#\w+)" fill-opacity="([\d.]+)"', noise_map(result(metric)))
    assert {fill for fill, _ in fills} == {colour}
    assert [float(opacity) for _, opacity in fills[:2]] == pytest.approx([0.75 * 2 / 20, 0.75], abs=1e-3)


def test_the_rows_of_the_table() -> None:
    assert noise_rows(result()) == [
        ("keyboard", "78.0", "60.0", "69.0", "-20.0 [-22.0, -18.0]"),
        ("leet", "-", "-", "-", "touches no row"),
    ]


def test_a_difference_without_an_interval() -> None:
    assert interval_text({"value": 1.25, "low": None, "high": None}) == "+1.2"

import re
import xml.etree.ElementTree as ElementTree
from itertools import combinations, pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from reporting.builders import CE, SCAL, measured, run

from contraverse.errors import UserError
from contraverse.reporting import Measured, accuracy_curve
from contraverse.reporting.curve import DARK, LIGHT, apart

SVG = "{http://www.w3.org/2000/svg}"


def texts(svg: str) -> list[str]:
    return [element.text or "" for element in ElementTree.fromstring(svg).iter(f"{SVG}text")]


def lines(svg: str) -> dict[str, np.ndarray]:
    """The points of each method's line, in the picture's units, by series."""
    paths = [
        path for path in ElementTree.fromstring(svg).iter(f"{SVG}path") if "stroke-width: 1.8" in path.get("style", "")
    ]
    points = {}
    for path in paths:
        series = re.search(r"stroke: var\((--series-\d)", path.get("style", ""))[1]  # type: ignore[index]
        points[series] = np.array(
            [[float(v) for v in p.split()] for p in re.findall(r"[ML] ([\d. -]+)", path.get("d", ""))]
        )
    return points


def test_a_line_a_method_at_the_measured_points() -> None:
    svg = accuracy_curve([CE, SCAL])
    found = lines(svg)
    assert list(found) == ["--series-1", "--series-2"]
    np.testing.assert_array_equal(found["--series-1"][:, 0], found["--series-2"][:, 0])
    assert (found["--series-1"][1:, 1] > found["--series-2"][1:, 1]).all(), "lower in the picture is lower in accuracy"


def test_the_axis_runs_from_0_to_100_percent_and_ticks_stand_where_it_was_measured() -> None:
    svg = accuracy_curve([SCAL])
    assert texts(svg) == ["0", "0.1", "0.3", "1", "PGD ε", "0", "25", "50", "75", "100 %", "SCAL"]
    rules = [float(y) for y in re.findall(r'd="M \S+ (\S+) \nL [^"]*"[^>]*--rule', svg)]
    x, y, width, height = map(float, re.findall(r'<rect x="(\S+)" y="(\S+)" width="(\S+)" height="(\S+)"', svg)[0])
    np.testing.assert_allclose(rules, np.linspace(y + height, y, 5))
    points = lines(svg)["--series-1"]
    np.testing.assert_allclose((y + height - points[:, 1]) / height, [0.964, 0.924, 0.76, 0.036], atol=1e-6)
    np.testing.assert_allclose((points[:, 0] - x) / width, [0, 0.1, 0.3, 1], atol=1e-6)


def test_ticks_that_would_run_into_each_other_are_thinned() -> None:
    crowded = run("a", {"accuracy": 90.0} | dict.fromkeys((0.01, 0.02, 1.0), 50.0))
    assert "0.01" not in texts(accuracy_curve([crowded]))


def test_error_bars_only_over_several_seeds() -> None:
    one = accuracy_curve([measured("a", 90.0, 50.0)])
    two = accuracy_curve([measured("a", 90.0, 50.0), measured("a", 92.0, 60.0)])
    assert "LineCollection" not in one
    bars = re.search(r'<g id="LineCollection_1">(.*?)</g>', two, re.DOTALL)
    assert bars is not None
    heights = [abs(float(a) - float(b)) for a, b in re.findall(r"M \S+ (\S+) \nL \S+ (\S+)", bars[1])]
    mean_line = lines(two)["--series-1"]
    unit = abs(mean_line[1, 1] - mean_line[0, 1]) / (91 - 55)
    np.testing.assert_allclose([h / unit for h in heights], [2 * 2**0.5, 2 * 50**0.5], rtol=1e-4)


def test_a_method_without_a_clean_figure_begins_at_its_first_epsilon() -> None:
    svg = accuracy_curve([measured("a", 90.0, 50.0), run("b", {0.1: 80.0, 0.3: 40.0})])
    assert len(lines(svg)["--series-2"]) == 2
    assert lines(svg)["--series-2"][0, 0] > lines(svg)["--series-1"][0, 0]


def test_names_are_text_and_cannot_become_markup_or_mathematics() -> None:
    svg = accuracy_curve([measured("<script>$x^2$", 90.0, 50.0), measured("日本\n語", 80.0, 40.0)])
    assert texts(svg)[-2:] == ["<script>$x^2$", "日本 語"]
    assert "<script" not in svg


def test_long_names_are_cut_and_leave_room_for_the_lines() -> None:
    svg = accuracy_curve([measured("a" * 80, 90.0, 50.0)])
    assert texts(svg)[-1] == "a" * 19 + "…"
    assert np.ptp(lines(svg)["--series-1"][:, 0]) > 100


def test_colours_are_the_page_s_and_nothing_is_fetched() -> None:
    svg = accuracy_curve([CE, SCAL])
    assert not re.findall(r"(?:fill|stroke): #", svg)
    assert "<style" not in svg
    assert not re.findall(r'(?:href|src)="(?!#)', svg)
    assert svg.startswith('<svg role="img" aria-label="Accuracy against the epsilon of PGD"')


def test_the_same_figures_give_the_same_bytes() -> None:
    assert accuracy_curve([CE, SCAL]) == accuracy_curve([CE, SCAL])


def test_nothing_to_draw() -> None:
    with pytest.raises(UserError, match="epsilon"):
        accuracy_curve([Measured("a", {"accuracy": 90.0})])


@given(st.lists(st.floats(0, 100), min_size=1, max_size=6))
def test_names_beside_the_lines_stayapart_inside_and_in_order(heights: list[float]) -> None:
    placed = apart(heights, gap=8.0)
    assert all(b - a >= 8 - 1e-9 for a, b in pairwise(sorted(placed)))
    assert max(placed) <= 100
    for (a, at), (b, bt) in combinations(zip(heights, placed, strict=True), 2):
        assert a == b or (a < b) == (at < bt)


def luminance(colour: str) -> float:
    channels = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


@pytest.mark.parametrize(("colours", "ground"), [(LIGHT, "#ffffff"), (DARK, "#14161a")])
def test_a_name_in_a_line_s_colour_can_be_read(colours: tuple[str, ...], ground: str) -> None:
    for colour in colours:
        low, high = sorted([luminance(colour), luminance(ground)])
        assert (high + 0.05) / (low + 0.05) >= 4.5, colour

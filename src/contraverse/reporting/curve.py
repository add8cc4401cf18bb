"""Accuracy against epsilon, as an inline SVG that takes the colours of the page it is put in."""

import re
import warnings
from collections.abc import Sequence
from html import escape
from io import StringIO
from itertools import pairwise
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from contraverse.attacks import attack_label
from contraverse.errors import UserError
from contraverse.reporting.figures import Measured, compare
from contraverse.reporting.names import heading, plain
from contraverse.reporting.tables import Cell
from contraverse.units import shown

# Any two of these stay apart for a reader without one kind of cone (CIE76 distance of 17 or more), and each has a
# contrast of 4.5 or more to its ground, so that a line's name can be set in its colour.
LIGHT = ("#0072b2", "#c04f00", "#7a3be0", "#2b2f36", "#8a6d3b")
DARK = ("#56b4e9", "#ff8a4c", "#f0e05a", "#e9ecef", "#d869b8")
MARKERS = "osD^v"
WIDTH, HEIGHT = 4.6, 3.0  # inches; set at 440 px, 9.5 pt text is as large as the page's notes
MUTED, RULE = "#60646c", "#e2e4e8"

SETTINGS: Any = {
    "svg.fonttype": "none",  # text stays text: it can be searched, and takes the page's font
    "svg.hashsalt": "contraverse",  # the same figures give the same bytes
    "text.parse_math": False,  # a dollar in a run's name is a dollar
    "font.family": "DejaVu Sans",
    "font.size": 9.5,
}


def accuracy_curve(runs: Sequence[Measured]) -> str:
    """Accuracy (0-100 %) against the attack's epsilon: a line a run's name, from the clean figure at epsilon 0.

    Runs of one name are seeds: their mean, with an error bar of one sample standard deviation. Only the first
    attack that the runs hold is drawn.

    Returns:
        An ``<svg>`` element. Lines take ``var(--series-1)`` ... where the page defines them, rules ``var(--rule)``,
        the axes' text ``var(--muted)``; alone it is drawn for a light ground.

    Raises:
        UserError: no run holds a figure under attack.
    """
    comparison = compare(runs)
    if not comparison.attacks:
        raise UserError("no figures under attack to draw", hint="evaluate with at least one epsilon")
    metric, attack = comparison.attacks[0]
    columns = comparison.under(metric, attack)
    figure = Figure(figsize=(WIDTH, HEIGHT))
    with matplotlib.rc_context(SETTINGS):
        names = [shortened(row.key[0]) for row in comparison.table.rows]
        axes = figure.add_axes((0.1, 0.17, 0.86 - 0.0175 * max(map(len, names)), 0.77))
        ends = {}
        for i, row in enumerate(comparison.table.rows):
            at = {0.0: row.cells.get(metric)} | {epsilon: row.cells[key] for epsilon, key in columns.items()}
            points = {epsilon: cell for epsilon, cell in at.items() if cell is not None}
            if points:
                draw_line(axes, points, i)
                ends[i] = points[max(points)].mean
        draw_frame(axes, [0.0, *columns], f"{attack_label(attack)} ε")
        for i, height in zip(ends, apart(list(ends.values()), gap=8.0), strict=True):
            name_line(axes, names[i], height, LIGHT[i % len(LIGHT)])
        return themed(as_svg(figure), f"{heading(metric)} against the epsilon of {attack_label(attack)}")


def draw_line(axes: Axes, points: dict[float, Cell], i: int) -> None:
    """The i-th line, with a marker at each point and error bars where there is a deviation."""
    deviations = [cell.sd or 0.0 for cell in points.values()]
    means = [cell.mean for cell in points.values()]
    # An error bar ends at the frame: below 0 % it would cross the labels of the axis.
    bars = [[max(0.0, min(sd, mean)) for sd, mean in zip(deviations, means, strict=True)], deviations]
    axes.errorbar(
        list(points),
        means,
        yerr=bars if any(deviations) else None,
        color=LIGHT[i % len(LIGHT)],
        marker=MARKERS[i % len(MARKERS)],
        linestyle="-" if i < len(LIGHT) else "--",
        linewidth=1.8,
        markersize=4.5,
        elinewidth=1.0,
        capsize=2.0,
        clip_on=False,
    )


def draw_frame(axes: Axes, at: Sequence[float], xlabel: str, *, left: float | None = 0.0) -> None:
    """Axes from ``left`` (None: the first of ``at``) to the last of ``at``, and from 0 to 100 %."""
    axes.set_ylim(0, 100)
    axes.set_yticks([0, 25, 50, 75, 100], ["0", "25", "50", "75", "100 %"])
    left, right = min(at) if left is None else left, max(at)
    axes.set_xlim(left, right)
    if all(b - a >= (right - left) / 12 for a, b in pairwise(at)):
        axes.set_xticks(at, [shown(x) for x in at])
    axes.set_xlabel(xlabel, color=MUTED)
    axes.tick_params(length=0, labelcolor=MUTED, pad=5)
    axes.spines[:].set_visible(False)
    axes.grid(axis="y", color=RULE, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.patch.set_visible(False)
    axes.figure.patch.set_visible(False)


def name_line(axes: Axes, name: str, height: float, colour: str) -> None:
    """A line's name to the right of the axes."""
    right = axes.get_xlim()[1]
    axes.annotate(
        name, (right, height), (9, 0), textcoords="offset points", va="center", color=colour, annotation_clip=False
    )


def shortened(name: str, limit: int = 20) -> str:
    """``name`` on one line of at most ``limit`` characters."""
    name = plain(name)
    return name if len(name) <= limit else name[: limit - 1] + "…"


def apart(heights: Sequence[float], gap: float) -> list[float]:
    """``heights`` moved up, in order, so that neighbours are ``gap`` apart; down from 100 where they pass it."""
    order = sorted(range(len(heights)), key=lambda i: heights[i])
    placed = list(heights)
    for low, high in pairwise(order):
        placed[high] = max(placed[high], placed[low] + gap)
    ceiling = 100.0
    for i in reversed(order):
        placed[i] = min(placed[i], ceiling)
        ceiling = placed[i] - gap
    return placed


def as_svg(figure: Figure) -> str:
    """The figure as matplotlib writes it; the same figure gives the same bytes."""
    out = StringIO()
    with warnings.catch_warnings():
        # The reader's browser draws the text, in a font of its own.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        FigureCanvasSVG(figure).print_svg(out, metadata={"Date": None, "Creator": None})
    return out.getvalue()


def themed(svg: str, title: str) -> str:
    """The bare ``<svg>`` element, its colours replaced by the page's (see `accuracy_curve`)."""
    colours = {MUTED: f"var(--muted, {MUTED})", RULE: f"var(--rule, {RULE})"}
    colours |= {colour: f"var(--series-{i}, {colour})" for i, colour in enumerate(LIGHT, start=1)}
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"(fill|stroke): (#[0-9a-f]{6})", lambda m: f"{m[1]}: {colours.get(m[2], m[2])}", svg)
    svg = svg.replace("font-family: 'DejaVu Sans'", "font-family: system-ui, sans-serif")
    return svg.replace("<svg ", f'<svg role="img" aria-label="{escape(title, quote=True)}" ', 1)

"""Report of a study as one HTML file that asks nothing of the network: tables, trade-off, robustness, power."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from contraverse.attacks import attack_label
from contraverse.evaluation.keys import MetricKey
from contraverse.evaluation.metrics import TABLE
from contraverse.reporting.curve import (
    DARK,
    HEIGHT,
    LIGHT,
    MARKERS,
    MUTED,
    RULE,
    SETTINGS,
    WIDTH,
    apart,
    as_svg,
    draw_frame,
    name_line,
    shortened,
    themed,
)
from contraverse.reporting.names import MISSING, heading
from contraverse.reporting.study import Mean, StudyTable
from contraverse.reporting.templates import template


def html(tables: Sequence[StudyTable], *, name: str, question: str, text: str = "") -> str:
    """The study's report; every name in it is escaped, and its policy lets no script run.

    Args:
        tables: one a task.
        name, question, text: the study's.
    """
    tasks = [
        {
            "table": table,
            "headings": [heading(metric) for metric in table.metrics],
            "rows": [_row(table, label, table.printed.get(label, {})) for label in table.methods],
            "differences": _differences(table),
            "figures": [Markup(svg) for svg in (trade_off(table), bands(table), power(table)) if svg],
        }
        for table in tables
    ]
    series = list(zip(LIGHT, DARK, strict=True))
    page = template("study.html.j2", escape=True)
    return page.render(name=name, question=question, text=text, tasks=tasks, series=series, missing=MISSING)


def trade_off(table: StudyTable) -> str | None:
    """Metric under attack against the clean one, a point a method; None without both.

    The attack's middle radius is drawn. Bars are one sample standard deviation over seeds. A hollow marker is a figure
    that a paper prints.

    Returns:
        An ``<svg>`` element in the colours of the page, see `contraverse.reporting.curve.accuracy_curve`.
    """
    keys = _attacked(table)
    if not keys:
        return None
    clean, attacked = keys[0].metric, str(keys[len(keys) // 2])
    figure = Figure(figsize=(WIDTH, HEIGHT))
    with matplotlib.rc_context(SETTINGS):
        axes = figure.add_axes((0.12, 0.17, 0.66, 0.77))
        heights, points = {}, {}
        for i, label in enumerate(table.methods):
            x, y = table.means.get((label, clean)), table.means.get((label, attacked))
            if x is not None and y is not None:
                _point(axes, x, y, i)
                heights[i], points[i] = y.mean, x.mean
            theirs = table.printed.get(label, {})
            if clean in theirs and attacked in theirs:
                colour = LIGHT[i % len(LIGHT)]
                axes.plot(
                    theirs[clean], theirs[attacked], marker=MARKERS[i % len(MARKERS)], mfc="none", mec=colour, ls=""
                )
        if not heights:
            return None
        _free_frame(axes)
        axes.set_xlabel(heading(clean), color=MUTED)
        axes.set_ylabel(heading(attacked), color=MUTED)
        (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
        axes.set(xlim=(left, right), ylim=(low, high))  # the lines to the names move them no more
        scaled = [100 * (height - low) / (high - low) for height in heights.values()]
        for i, place in zip(heights, apart(scaled, gap=_gap(len(scaled))), strict=True):
            end = low + place * (high - low) / 100
            axes.plot([points[i], right], [heights[i], end], color=LIGHT[i % len(LIGHT)], linewidth=0.5, zorder=0)
            name_line(axes, shortened(table.methods[i], 16), end, LIGHT[i % len(LIGHT)])
        return themed(as_svg(figure), f"{heading(attacked)} against {heading(clean)} on {table.task}")


def bands(table: StudyTable) -> str | None:
    """Metric in percent against the attack's epsilon, a line a method, in a band of one deviation over seeds.

    Returns:
        An ``<svg>`` element in the colours of the page; None without figures under attack.
    """
    keys = _attacked(table)
    if not keys:
        return None
    figure = Figure(figsize=(WIDTH, HEIGHT))
    with matplotlib.rc_context(SETTINGS):
        axes = figure.add_axes((0.1, 0.17, 0.68, 0.77))
        ends = {}
        for i, label in enumerate(table.methods):
            columns = [(0.0, keys[0].metric), *((key.epsilon or 0.0, str(key)) for key in keys)]
            means = {x: mean for x, name in columns if (mean := table.means.get((label, name))) is not None}
            if means:
                _band(axes, means, i)
                ends[i] = means[max(means)].mean
        draw_frame(axes, [0.0, *(key.epsilon or 0.0 for key in keys)], f"{attack_label(str(keys[0].under))} ε")
        for i, height in zip(ends, apart(list(ends.values()), gap=_gap(len(ends))), strict=True):
            name_line(axes, shortened(table.methods[i], 16), height, LIGHT[i % len(LIGHT)])
        title = f"{heading(keys[0].metric)} against the epsilon of {attack_label(str(keys[0].under))} on {table.task}"
        return themed(as_svg(figure), title)


def power(table: StudyTable) -> str | None:
    """Smallest difference that a study finds four times in five, against its number of seeds, a line a comparison.

    Of the metric under the middle radius, or the first column in percent. A marker stands at the study's own seeds; to
    its right the lines are extrapolated from the variances between seeds and between rows. One seed tells none.

    Returns:
        An ``<svg>`` element in the colours of the page; None without a comparison of two seeds.
    """
    keys, percent = _attacked(table), [metric for metric in table.metrics if MetricKey.read(metric).metric in TABLE]
    metric = str(keys[len(keys) // 2]) if keys else next(iter(percent), None)
    drawn = [c for c in table.comparisons if c.metric == metric and c.paired.components is not None]
    if metric is None or not drawn:
        return None
    seeds = range(2, max(20, *(c.paired.seeds for c in drawn)) + 1)
    lines = [[c.paired.detectable_with(n) for n in seeds] for c in drawn]
    highest = 1.2 * max(max(line[1:]) for line in lines) or 1.0  # two seeds may need a difference off the scale
    figure = Figure(figsize=(WIDTH, HEIGHT))
    with matplotlib.rc_context(SETTINGS):
        axes = figure.add_axes((0.1, 0.17, 0.62, 0.77))
        _free_frame(axes)
        axes.set(xlim=(2, seeds[-1]), ylim=(0, highest))
        axes.set_xlabel("seeds", color=MUTED)
        axes.set_ylabel("detectable difference", color=MUTED)
        for i, (c, line) in enumerate(zip(drawn, lines, strict=True)):
            colour = LIGHT[i % len(LIGHT)]
            axes.plot(seeds, line, color=colour, linewidth=1.6, linestyle="-" if i < len(LIGHT) else "--")
            own = c.paired.seeds
            axes.plot(own, c.paired.detectable_with(own), marker=MARKERS[i % len(MARKERS)], color=colour, ls="")
        ends = apart([100 * line[-1] / highest for line in lines], gap=_gap(len(lines)))
        for i, (c, end) in enumerate(zip(drawn, ends, strict=True)):
            name_line(axes, shortened(f"{c.first} - {c.second}", 24), end * highest / 100, LIGHT[i % len(LIGHT)])
        title = f"Detectable difference of {heading(metric)} against the number of seeds on {table.task}"
        return themed(as_svg(figure), title)


def _attacked(table: StudyTable) -> list[MetricKey]:
    """Columns of the first metric and attack, by rising epsilon."""
    keys = [MetricKey.read(name) for name in table.metrics]
    keys = [key for key in keys if key.epsilon is not None and key.metric in table.metrics]
    first = [key for key in keys if (key.metric, key.under) == (keys[0].metric, keys[0].under)]
    return sorted(first, key=lambda key: key.epsilon or 0.0)


def _point(axes: Axes, x: Mean, y: Mean, i: int) -> None:
    axes.errorbar(
        x.mean,
        y.mean,
        xerr=x.deviation or None,
        yerr=y.deviation or None,
        color=LIGHT[i % len(LIGHT)],
        marker=MARKERS[i % len(MARKERS)],
        markersize=5,
        elinewidth=0.8,
        capsize=2.0,
    )


def _band(axes: Axes, means: Mapping[float, Mean], i: int) -> None:
    colour, xs = LIGHT[i % len(LIGHT)], list(means)
    centre = [mean.mean for mean in means.values()]
    spread = [mean.deviation or 0.0 for mean in means.values()]
    axes.plot(
        xs,
        centre,
        color=colour,
        marker=MARKERS[i % len(MARKERS)],
        markersize=4,
        linewidth=1.6,
        linestyle="-" if i < len(LIGHT) else "--",
        clip_on=False,
    )
    if any(spread):
        low = [max(0.0, c - s) for c, s in zip(centre, spread, strict=True)]
        high = [min(100.0, c + s) for c, s in zip(centre, spread, strict=True)]
        axes.fill_between(xs, low, high, color=colour, alpha=0.15, linewidth=0)


def _free_frame(axes: Axes) -> None:
    axes.margins(0.08)
    axes.tick_params(length=0, labelcolor=MUTED, pad=5)
    axes.spines[:].set_visible(False)
    axes.grid(color=RULE, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.patch.set_visible(False)
    axes.figure.patch.set_visible(False)


def _gap(count: int) -> float:
    """Distance of names at the right, in hundredths of the height."""
    return min(7.0, 100.0 / max(count, 1))


def _row(table: StudyTable, label: str, printed: Mapping[str, float]) -> dict[str, Any]:
    means = [table.means.get((label, metric)) for metric in table.metrics]
    cells = [
        {"mean": None if mean is None else str(mean), "printed": printed.get(metric)}
        for metric, mean in zip(table.metrics, means, strict=True)
    ]
    return {"label": label, "seeds": max((mean.seeds for mean in means if mean is not None), default=0), "cells": cells}


def _differences(table: StudyTable) -> list[dict[str, Any]]:
    rows = []
    for pair in dict.fromkeys((c.first, c.second) for c in table.comparisons):
        own = {c.metric: c for c in table.comparisons if (c.first, c.second) == pair}
        cells = [own.get(metric) for metric in table.metrics]
        rows.append(
            {
                "label": " - ".join(pair),
                "cells": [None if c is None else {"text": str(c), "decided": c.corrected < 0.05} for c in cells],
            }
        )
    return rows

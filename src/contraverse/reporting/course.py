"""A training from epoch to epoch, as inline SVGs: metrics of the validation rows, and the loss."""

from collections.abc import Iterator, Mapping, Sequence
from math import isfinite
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from contraverse.reporting.curve import (
    HEIGHT,
    LIGHT,
    SETTINGS,
    WIDTH,
    apart,
    as_svg,
    draw_frame,
    draw_line,
    name_line,
    themed,
)
from contraverse.reporting.names import heading, is_percent
from contraverse.reporting.tables import Cell

_PREFIX = "eval_"
MOST_POINTS = 60
"""Points of the loss that are drawn: a long log would make a page of megabytes."""


def validation_course(log: Sequence[Mapping[str, Any]]) -> str | None:
    """Shares of the validation rows (0-100 %) against epochs, a line a metric, as ACL's Figure 3.

    Args:
        log: rows of ``metrics.jsonl``. Metrics that are no shares are left out, and values that are no number.

    Returns:
        An ``<svg>`` element as `accuracy_curve`'s; None where fewer than two epochs are logged.
    """
    shares = [name for name in dict.fromkeys(name for row in log for name in row) if _is_share(name)]
    lines = {name: points for name in shares if len(points := dict(_points(log, name))) > 1}
    if not lines:
        return None
    figure = Figure(figsize=(WIDTH, HEIGHT))
    with matplotlib.rc_context(SETTINGS):
        names = [heading(name.removeprefix(_PREFIX)) for name in lines]
        axes = figure.add_axes((0.1, 0.17, 0.86 - 0.0175 * max(map(len, names)), 0.77))
        for i, points in enumerate(lines.values()):
            draw_line(axes, points, i)
        draw_frame(axes, sorted({epoch for points in lines.values() for epoch in points}), "epoch", left=None)
        ends = apart([points[max(points)].mean for points in lines.values()], gap=8.0)
        for i, (name, height) in enumerate(zip(names, ends, strict=True)):
            name_line(axes, name, height, LIGHT[i % len(LIGHT)])
        return themed(as_svg(figure), f"{' and '.join(names)} on validation rows, by epoch")


def loss_course(log: Sequence[Mapping[str, Any]]) -> str | None:
    """The loss of the training batches against epochs; ``log`` and the result as of `validation_course`."""
    losses = _thinned(dict(_points(log, "loss")))
    if len(losses) < 2:
        return None
    figure = Figure(figsize=(WIDTH, HEIGHT))
    with matplotlib.rc_context(SETTINGS):
        axes = figure.add_axes((0.1, 0.17, 0.86, 0.77))
        draw_line(axes, losses, 0)
        draw_frame(axes, list(losses), "epoch", left=None)
        values = [cell.mean for cell in losses.values()]
        low, high = min(*values, 0.0), max(*values, 0.0)
        ticks = sorted({low, (low + high) / 2, high})
        axes.set_ylim(low, high if high > low else low + 1)
        axes.set_yticks(ticks, [f"{value:.3g}" for value in ticks])
        return themed(as_svg(figure), "Training loss by epoch")


def _thinned(points: dict[float, Cell]) -> dict[float, Cell]:
    """At most `MOST_POINTS` points: means of neighbours, each at the epoch of the last of them."""
    size = -(-len(points) // MOST_POINTS)
    if size <= 1:
        return points
    epochs = list(points)
    groups = [epochs[first : first + size] for first in range(0, len(epochs), size)]
    return {group[-1]: Cell(sum(points[at].mean for at in group) / len(group), None, 1) for group in groups}


def _is_share(name: str) -> bool:
    return name.startswith(_PREFIX) and is_percent(name.removeprefix(_PREFIX))


def _points(log: Sequence[Mapping[str, Any]], name: str) -> Iterator[tuple[float, Cell]]:
    for row in log:
        value, epoch = row.get(name), row.get("epoch")
        if isinstance(value, int | float) and isfinite(value) and epoch is not None:
            yield float(epoch), Cell(float(value), None, 1)

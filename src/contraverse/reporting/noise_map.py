"""Kinds of noise by strengths, as an inline SVG that takes the colours of the page it is put in."""

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from contraverse.evaluation.metrics import TABLE
from contraverse.reporting.names import label

_LABEL_WIDTH, _CELL_WIDTH, _ROW = 132, 52, 24
_WORSE, _BETTER = "#d9480f", "#1971c2"
_FULL_SCALE = 10.0
"""Points of difference to the clean figure that have at least the full colour."""


def noise_map(noise: Mapping[str, Any]) -> str:
    """Draw a metric by kind (down) and strength (across), the darker the farther from the clean one.

    Args:
        noise: as `contraverse.evaluation.NoiseReport.to_dict` gives it.
    """
    strengths = sorted({cell["strength"] for cell in noise["cells"]})
    kinds = list(dict.fromkeys(cell["kind"] for cell in noise["cells"]))
    values = {(cell["kind"], cell["strength"]): cell for cell in noise["cells"]}
    scale = max([_FULL_SCALE, *(abs(cell["value"] - noise["clean"]) for cell in noise["cells"])])
    sign = 1 if TABLE[noise["metric"]].greater_is_better else -1

    def worse(value: float) -> float:
        """Loss against the clean figure, -1 to 1 of the scale."""
        return sign * (noise["clean"] - value) / scale

    width, height = _LABEL_WIDTH + _CELL_WIDTH * (len(strengths) + 1), _ROW * (len(kinds) + 2)
    title = f"{label(noise['metric'])} by kind and strength of noise; clean {noise['clean']:.1f}"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" '
        f'font-family="inherit" font-size="12" fill="currentColor">',
        f"<title>{escape(title)}</title>",
        *(_text(_LABEL_WIDTH + _CELL_WIDTH * (i + 0.5), 0, name) for i, name in enumerate([*strengths, "mean"])),
    ]
    for row, kind in enumerate(kinds, 1):
        parts.append(_text(0, row, kind, anchor="start"))
        cells = [values[kind, strength] for strength in strengths if (kind, strength) in values]
        untouched = bool(cells) and all(cell["untouched"] == noise["rows"] for cell in cells)
        for i, strength in enumerate(strengths):
            if cell := values.get((kind, strength)):
                parts.append(_cell(i, row, cell["value"], worse(cell["value"]), untouched))
        mean = sum(cell["value"] for cell in cells) / len(cells)
        parts.append(_cell(len(strengths), row, mean, worse(mean), untouched))
    parts.append(_text(0, len(kinds) + 1, "mean of all", anchor="start"))
    parts.append(_cell(len(strengths), len(kinds) + 1, noise["mean"]["value"], worse(noise["mean"]["value"]), False))
    return "".join([*parts, "</svg>"])


def _cell(column: int, row: int, value: float, worse: float, untouched: bool) -> str:
    if untouched:
        return _text(_LABEL_WIDTH + _CELL_WIDTH * (column + 0.5), row, "-")
    x, y = _LABEL_WIDTH + _CELL_WIDTH * column, _ROW * row
    colour, opacity = _WORSE if worse > 0 else _BETTER, 0.75 * min(1.0, abs(worse))
    rectangle = (
        f'<rect x="{x + 1}" y="{y + 1}" width="{_CELL_WIDTH - 2}" height="{_ROW - 2}" rx="2" '
        f'fill="{colour}" fill-opacity="{opacity:.3f}"/>'
    )
    return rectangle + _text(x + _CELL_WIDTH / 2, row, f"{value:.1f}")


def _text(x: float, row: int, text: object, anchor: str = "middle") -> str:
    return f'<text x="{x:g}" y="{_ROW * row + 16}" text-anchor="{anchor}">{escape(str(text))}</text>'


def noise_rows(noise: Mapping[str, Any]) -> list[Sequence[str]]:
    """Rows of a table: kind, figure at each strength, their mean, and its difference to the clean figure."""
    strengths = sorted({cell["strength"] for cell in noise["cells"]})
    by_kind: dict[str, dict[int, Mapping[str, Any]]] = {}
    for cell in noise["cells"]:
        by_kind.setdefault(cell["kind"], {})[cell["strength"]] = cell
    rows = list[Sequence[str]]()
    for kind, cells in by_kind.items():
        if all(cell["untouched"] == noise["rows"] for cell in cells.values()):
            rows.append((kind, *("-" for _ in strengths), "-", "touches no row"))
            continue
        mean = sum(cell["value"] for cell in cells.values()) / len(cells)
        figures = (f"{cells[strength]['value']:.1f}" if strength in cells else "-" for strength in strengths)
        rows.append((kind, *figures, f"{mean:.1f}", interval_text(cells[max(cells)]["difference"])))
    return rows


def threshold_rows(noise: Mapping[str, Any]) -> list[Sequence[str]]:
    """Rows of a table: kind, recall at a detector's threshold at each strength, its mean, and mean false positives."""
    strengths = sorted({cell["strength"] for cell in noise["cells"]})
    cells = {(cell["kind"], cell["strength"]): cell["threshold"] for cell in noise["cells"]}
    rows = list[Sequence[str]]()
    for kind in dict.fromkeys(cell["kind"] for cell in noise["cells"]):
        own = {strength: cells[kind, strength] for strength in strengths if (kind, strength) in cells}
        means = (_mean(at.get(name) for at in own.values()) for name in ("recall", "false_positive_rate"))
        recalls = (_one(own.get(strength, {}).get("recall")) for strength in strengths)
        rows.append((kind, *recalls, *map(_one, means)))
    over_cells = (noise["threshold"].get(name, {}).get("mean", {}) for name in ("recall", "false_positive_rate"))
    rows.append(("mean of all", *("" for _ in strengths), *(_one(mean.get("value")) for mean in over_cells)))
    return rows


def threshold_text(noise: Mapping[str, Any]) -> str:
    """Recall and false positives at a detector's threshold, clean and under noise, in a sentence."""
    parts = []
    for name, called in (("recall", "recall"), ("false_positive_rate", "false positives")):
        if rate := noise["threshold"].get(name):
            under, change = rate["mean"]["value"], interval_text(rate["difference"])
            parts.append(f"{called} {rate['clean']:.1f} clean, {under:.1f} under noise, difference {change}")
    return f"{noise['positive']} at the saved threshold: {'; '.join(parts)}"


def _one(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def interval_text(figure: Mapping[str, float | None]) -> str:
    """A difference with its interval: "-3.2 [-5.1, -1.4]"."""
    value, low, high = figure["value"], figure["low"], figure["high"]
    ends = "" if low is None or high is None else f" [{low:+.1f}, {high:+.1f}]"
    return f"{value:+.1f}{ends}"

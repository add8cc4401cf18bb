"""One run, or several side by side, as a single HTML file that asks nothing of the network."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from contraverse.reporting import by_class, by_row, curve, detection, evasion, noise_section, sections
from contraverse.reporting.data import ReportData
from contraverse.reporting.outcome import outcome
from contraverse.reporting.sections import LONGEST_TEXT, Section, flat
from contraverse.reporting.templates import template
from contraverse.writing import write_text


class Figure(NamedTuple):
    """A row of the table of figures: the name of its element on the page, and the function that draws it."""

    name: str
    draw: Callable[[ReportData], Section | None]


FIGURES: tuple[Figure, ...] = (
    Figure("measured", sections.measured),
    Figure("curve", sections.accuracy_against_epsilon),
    Figure("confusion", by_class.confusion),
    Figure("classes", by_class.accuracy_by_class),
    Figure("pairs", by_class.confused_pairs),
    Figure("detector", detection.detector),
    Figure("noise", noise_section.under_noise),
    Figure("shift", sections.representation_shift),
    Figure("evasion", evasion.evasion),
    Figure("costs", sections.costs),
    Figure("validation", sections.validation),
    Figure("loss", sections.loss),
    Figure("mistakes", by_row.mistakes),
    Figure("fragile", by_row.fragile),
    Figure("pictures", sections.pictures),
    Figure("examples", sections.examples),
)
"""Figures of a report, in the order of the page. A new one is a function and a row here."""


def write_report(path: str | Path, data: ReportData) -> Path:
    """Write ``data`` as one HTML file, UTF-8, and return its path. Missing folders are made."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, render_report(data), errors="replace")
    return path


def render_report(data: ReportData) -> str:
    """The report's HTML. Every name and text in it is escaped, and its policy lets no script run."""
    drawn = [(figure.name, section) for figure in FIGURES if (section := figure.draw(data)) is not None]
    return template("report.html.j2", escape=True).render(
        data=data,
        outcome=data.outcome or outcome(data.runs, data.metric, digits=data.digits),
        series=list(zip(curve.LIGHT, curve.DARK, strict=True)),
        sections=drawn,
        images=any("<img" in section.body for _, section in drawn),
        longest=LONGEST_TEXT,
        settings=list(flat(data.settings)),
        environment=list(flat(data.environment)),
    )

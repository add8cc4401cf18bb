"""One run, or several side by side, as a single HTML file that asks nothing of the network."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import sqrt
from pathlib import Path
from typing import Any

from markupsafe import Markup

from contraverse.reporting import curve
from contraverse.reporting.course import training_course
from contraverse.reporting.figures import Comparison, Measured, compare
from contraverse.reporting.names import PERCENT, amount, describe_attack, duration, heading, label
from contraverse.reporting.outcome import outcome
from contraverse.reporting.pictures import Picture
from contraverse.reporting.templates import template
from contraverse.units import shown
from contraverse.writing import write_text

SWATCHES = "●■◆▲▼"
MOST_EXAMPLES, LONGEST_TEXT = 12, 400


@dataclass(frozen=True)
class Prediction:
    """What one run made of a text, as the names of classes; ``attacked`` None where it was not attacked."""

    run: str
    clean: str
    attacked: str | None = None


@dataclass(frozen=True)
class Example:
    """A test row: its texts (one, or two of a pair), its label, and what each run predicted."""

    texts: Sequence[str]
    label: str
    predictions: Sequence[Prediction]


@dataclass(frozen=True)
class ReportData:
    """What a report shows. Only ``title`` and ``runs`` are needed; what is empty is left out.

    ``runs``: the first is what others are compared with. ``metric``: what decides where nothing was attacked;
    ``greater_is_better`` says which way is up. ``attack``: settings of the attack (steps, norm, scope, ...).
    ``test_rows``: how many rows the figures are over. ``facts``: short words under the title (task, model, seed).
    ``outcome``: the sentence at the top, by default that of `contraverse.reporting.outcome.outcome`.
    ``examples``: the first 12 are shown; ``examples_under`` says under what attack, "PGD at ε=0.3".
    ``settings`` and ``environment`` may be nested. ``command``: what makes the report again. ``warnings``: reasons to
    doubt the figures, from `contraverse.evaluation.RobustReport`. ``shifts``: how far the attack moved representations,
    by the run's name, as `contraverse.evaluation.ShiftReport.to_dict` gives it. ``pictures``: images under attack.
    ``log``: rows of one run's ``metrics.jsonl``, for the course of its training.
    """

    title: str
    runs: Sequence[Measured]
    metric: str = "accuracy"
    greater_is_better: bool = True
    attack: Mapping[str, Any] = field(default_factory=dict)
    test_rows: int | None = None
    training_info: Sequence[str] = ()
    outcome: str | None = None
    examples: Sequence[Example] = ()
    examples_under: str = "attack"
    settings: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, Any] = field(default_factory=dict)
    command: str | None = None
    notes: Sequence[str] = ()
    warnings: Sequence[str] = ()
    shifts: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    pictures: Sequence[Picture] = ()
    log: Sequence[Mapping[str, Any]] = ()
    digits: int = 1


def write_report(path: str | Path, data: ReportData) -> Path:
    """Write ``data`` as one HTML file, UTF-8, and give back its path. Missing folders are made."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, render_report(data), errors="replace")
    return path


def render_report(data: ReportData) -> str:
    """The report's HTML. Every name and text in it is escaped, and its policy lets no script run."""
    comparison = compare(data.runs)
    return template("report.html.j2", escape=True).render(
        data=data,
        outcome=data.outcome
        or outcome(data.runs, data.metric, greater_is_better=data.greater_is_better, digits=data.digits),
        table=comparison.table,
        measured=_section(comparison),
        columns=_columns(comparison, data.metric),
        described=[describe_attack(attack, data.attack) for _, attack in comparison.attacks],
        many_seeds=any(row.n > 1 for row in comparison.table.rows),
        sampling=_sampling(comparison, data),
        swatches=SWATCHES,
        series=list(zip(curve.LIGHT, curve.DARK, strict=True)),
        curve=Markup(curve.accuracy_curve(data.runs)) if comparison.attacks else None,
        course=training_course(data.log),
        shifts=list(_shifts(data.shifts)),
        costs=_costs(data.runs),
        examples=data.examples[:MOST_EXAMPLES],
        longest=LONGEST_TEXT,
        settings=list(_flat(data.settings)),
        environment=list(_flat(data.environment)),
    )


def _section(comparison: Comparison) -> str:
    """The heading of the figures: "Accuracy, clean and under PGD"."""
    if not comparison.attacks:
        return "Measured"
    attacks = dict.fromkeys(attack.upper() for _, attack in comparison.attacks)
    return f"{heading(comparison.attacks[0][0])}, clean and under {' and '.join(attacks)}"


def _columns(comparison: Comparison, metric: str) -> list[tuple[str, str]]:
    """The table's columns with their names, which leave out what the section's heading says."""
    if not comparison.attacks:
        return [(key, heading(key)) for key in sorted(comparison.clean, key=lambda key: key != metric)]
    attacked_metric = comparison.attacks[0][0]
    clean = [(key, heading(key)) for key in comparison.clean if key != attacked_metric]
    clean += [(attacked_metric, "Clean")] * (attacked_metric in comparison.clean)
    single = len(comparison.attacks) == 1
    return clean + [
        (key, f"ε={shown(epsilon)}" if single else heading(key))
        for metric, attack in comparison.attacks
        for epsilon, key in comparison.under(metric, attack).items()
    ]


def _sampling(comparison: Comparison, data: ReportData) -> str | None:
    """How far a share measured on so few rows may be off by chance: sqrt(p (1 - p) / n)."""
    rows = comparison.table.rows
    cell = rows[0].cells.get(data.metric) if rows else None
    if not data.test_rows or cell is None or data.metric not in PERCENT - {"f1", "macro_f1"}:
        return None
    share = min(max(cell.mean / 100, 0.0), 1.0)
    error = 100 * sqrt(share * (1 - share) / data.test_rows)
    return (
        f"Over {data.test_rows:,} test rows, the {label(data.metric)} of {amount(cell.mean, data.metric)} has "
        f"a standard error of {error:.1f} points from the draw of the rows alone."
    )


def _shifts(shifts: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, str, str, str]]:
    """Run, radius, cosine and distance of each radius of each run, as printed."""
    for run, shift in shifts.items():
        for at in shift["at"]:
            yield run, shown(at["epsilon"]), f"{at['cosine']:.3f}", f"{at['euclidean']:.3f}"


def _costs(runs: Sequence[Measured]) -> list[tuple[str, str | None, str | None, str | None]]:
    """Per name: cost of a step, mean training time, and that time as a multiple of the first's."""
    times: dict[str, list[float]] = {}
    for run in runs:
        times.setdefault(run.name, []).extend([run.seconds] if run.seconds is not None else [])
    means = {name: sum(seconds) / len(seconds) for name, seconds in times.items() if seconds}
    costs = {run.name: run.cost for run in reversed(runs)}
    first = means.get(next(iter(times), ""))
    return [
        (
            name,
            costs[name],
            duration(means[name]) if name in means else None,
            f"{means[name] / first:.2f}×" if first and name in means and len(times) > 1 else None,
        )
        for name in times
        if costs[name] or name in means
    ]


def _flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """A nested mapping's leaves under dotted names; None and empty values say so."""
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)

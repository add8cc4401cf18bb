"""Figures of a report: each is a function from `ReportData` to a `Section`, or None where it has nothing to show."""

from collections.abc import Iterator, Mapping, Sequence
from math import sqrt
from typing import Any, NamedTuple

from markupsafe import Markup

from contraverse.attacks import attack_label
from contraverse.evaluation.metrics import TABLE
from contraverse.reporting import course, curve
from contraverse.reporting.data import ReportData
from contraverse.reporting.figures import Comparison, Measured
from contraverse.reporting.names import amount, describe_attack, duration, heading, label
from contraverse.reporting.tables import Key
from contraverse.reporting.templates import template
from contraverse.units import shown

SWATCHES = "●■◆▲▼"
MOST_EXAMPLES, LONGEST_TEXT = 12, 400


class Section(NamedTuple):
    """A figure of the page: its heading, its HTML, and whether it needs the whole width."""

    title: str
    body: Markup
    wide: bool = False


def draw(macro: str, **values: Any) -> Markup:
    """The HTML of a macro of ``sections.html.j2``, every value escaped."""
    page = template("sections.html.j2", escape=True)
    return Markup(getattr(page.module, macro)(**values))


def measured(data: ReportData) -> Section:
    """The metrics of each run, clean and under attack."""
    comparison = data.comparison
    many_seeds = any(row.n > 1 for row in comparison.table.rows)
    columns = _columns(comparison, data.metric)
    body = draw(
        "measured",
        data=data,
        table=comparison.table,
        columns=columns,
        many_seeds=many_seeds,
        swatches=SWATCHES if comparison.attacks else "",
        series=len(curve.LIGHT),
        described=[describe_attack(attack, data.attack) for _, attack in comparison.attacks],
        sampling=_sampling(comparison, data),
    )
    wide = len(columns) > (3 if many_seeds else 5) or not comparison.attacks
    return Section(_title(comparison), body, wide)


def accuracy_against_epsilon(data: ReportData) -> Section | None:
    """Accuracy against the radius of the attack, a line a run."""
    if not data.comparison.attacks:
        return None
    (metric, attack), *_ = data.comparison.attacks
    title = f"{heading(metric)} against the size of {attack_label(attack)}"
    return Section(title, draw("plot", svg=Markup(curve.accuracy_curve(data.runs)), caption=""))


def validation(data: ReportData) -> Section | None:
    """Metrics of the validation rows from epoch to epoch."""
    if (svg := course.validation_course(data.log)) is None:
        return None
    return Section("Validation", draw("plot", svg=Markup(svg), caption="On validation rows, as training went on."))


def loss(data: ReportData) -> Section | None:
    """Loss of the training batches from epoch to epoch."""
    if (svg := course.loss_course(data.log)) is None:
        return None
    return Section("Training loss", draw("plot", svg=Markup(svg), caption="The loss of the training batches."))


def representation_shift(data: ReportData) -> Section | None:
    """Movement of the representations under attack."""
    if not data.shifts:
        return None
    rows = [
        (run, shown(at["epsilon"]), f"{at['cosine']:.3f}", f"{at['euclidean']:.3f}")
        for run, shift in data.shifts.items()
        for at in shift["at"]
    ]
    note = (
        "Cosine similarity and Euclidean distance of a text's pooled features with and without the attack, mean over "
        "the attacked rows."
    )
    grid = draw("grid", header=("Run", "ε", "Cosine", "Distance"), rows=rows, note=note)
    return Section("Representations under attack", grid)


def costs(data: ReportData) -> Section | None:
    """Cost of a step and time of training."""
    rows = _costs(data.runs)
    if not rows:
        return None
    several = len(rows) > 1
    note = "1F is one forward pass; a gradient of the inputs or of the weights counts as one more each."
    note += " Relative: training time over the first run's." if several else ""
    header = ("Run", "Step", "Training", "Relative") if several else ("Run", "Step", "Training")
    return Section("Cost", draw("grid", header=header, rows=[row[: len(header)] for row in rows], note=note))


def pictures(data: ReportData) -> Section | None:
    """Images under attack, and the classes that each run predicts for them."""
    return Section("Images under attack", draw("pictures", data=data), wide=True) if data.pictures else None


def examples(data: ReportData) -> Section | None:
    """Texts under attack, and the classes that each run predicts for them."""
    if not data.examples:
        return None
    body = draw("examples", data=data, examples=data.examples[:MOST_EXAMPLES], longest=LONGEST_TEXT)
    return Section("Examples", body, wide=True)


def _title(comparison: Comparison) -> str:
    """The heading of the metrics: "Accuracy, clean and under PGD"."""
    if not comparison.attacks:
        return "Measured"
    attacks = dict.fromkeys(attack_label(attack) for _, attack in comparison.attacks)
    return f"{heading(comparison.attacks[0][0])}, clean and under {' and '.join(attacks)}"


def _columns(comparison: Comparison, metric: str) -> list[tuple[Key, str]]:
    """The table's columns with their names, which leave out what the section's heading says."""
    if not comparison.attacks:
        return [(key, heading(key)) for key in sorted(comparison.clean, key=lambda key: key != metric)]
    attacked_metric = comparison.attacks[0][0]
    clean: list[tuple[Key, str]] = [(key, heading(key)) for key in comparison.clean if key != attacked_metric]
    clean += [(attacked_metric, "Clean")] * (attacked_metric in comparison.clean)
    single = len(comparison.attacks) == 1
    return clean + [
        (key, f"ε={shown(epsilon)}" if single else heading(key))
        for metric, attack in comparison.attacks
        for epsilon, key in comparison.under(metric, attack).items()
    ]


def _sampling(comparison: Comparison, data: ReportData) -> str | None:
    """Standard error of a share measured on so few rows: sqrt(p (1 - p) / n)."""
    rows = comparison.table.rows
    cell = rows[0].cells.get(data.metric) if rows else None
    if not data.test_rows or cell is None or data.metric not in TABLE or not TABLE[data.metric].of_rows:
        return None
    share = min(max(cell.mean / 100, 0.0), 1.0)
    error = 100 * sqrt(share * (1 - share) / data.test_rows)
    return (
        f"Over {data.test_rows:,} test rows, the {label(data.metric)} of {amount(cell.mean, data.metric)} has "
        f"a standard error of {error:.1f} points from the draw of the rows alone."
    )


def _costs(runs: Sequence[Measured]) -> list[tuple[str, str, str, str]]:
    """Per name: cost of a step, mean training time, and that time as a multiple of the first's; "-" where unknown."""
    times: dict[str, list[float]] = {}
    for run in runs:
        times.setdefault(run.name, []).extend([run.seconds] if run.seconds is not None else [])
    means = {name: sum(seconds) / len(seconds) for name, seconds in times.items() if seconds}
    costs = {run.name: run.cost for run in reversed(runs)}
    first = means.get(next(iter(times), ""))
    return [
        (
            name,
            costs[name] or "-",
            duration(means[name]) if name in means else "-",
            f"{means[name] / first:.2f}×" if first and name in means and len(times) > 1 else "-",
        )
        for name in times
        if costs[name] or name in means
    ]


def flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """A nested mapping's leaves under dotted names; None and empty values say so."""
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)

"""Outcome of a comparison in one sentence."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median_low

from contraverse.attacks import attack_label
from contraverse.evaluation.keys import MetricKey
from contraverse.evaluation.metrics import TABLE
from contraverse.reporting.figures import Measured, compare
from contraverse.reporting.names import MISSING, amount, label, plain
from contraverse.reporting.tables import Key, Row, Table
from contraverse.units import shown

NOTHING = "Nothing was measured."


def outcome(runs: Sequence[Measured], metric: str = "accuracy", *, digits: int = 1) -> str:
    """The best run beside the first (or, where the first is the best, beside the next best).

    With figures under attack: at the middle epsilon, and the figures of both on clean data. Without any: by ``metric``,
    of which the table of metrics says whether greater is better.
    """
    comparison = compare(runs)
    if not comparison.attacks:
        return _clean(comparison.table, _Speaker(metric, digits))
    metric, attack = comparison.attacks[0]
    columns = comparison.under(metric, attack)
    epsilon = median_low(columns)
    return _robust(
        comparison.table, _Speaker(metric, digits), columns[epsilon], f"{attack_label(attack)} at ε={shown(epsilon)}"
    )


@dataclass(frozen=True)
class _Speaker:
    """Values of one metric as text."""

    metric: str
    digits: int

    def __call__(self, row: Row, column: MetricKey | None = None) -> str:
        cell = row.cells.get(column or self.metric)
        return amount(cell.mean, self.metric, self.digits) if cell else MISSING


def _clean(table: Table, say: _Speaker) -> str:
    greater_is_better = say.metric not in TABLE or TABLE[say.metric].greater_is_better
    best, other = _best_and_rival(table, say.metric, greater_is_better)
    if best is None:
        return NOTHING
    seeds = _seeds(best)
    sentence = f"{_name(best)} reaches {say(best)} ({label(say.metric)}{seeds and ', ' + seeds})"
    if other is None:
        return f"{sentence}."
    if say(other) == say(best):
        return f"{sentence}, as does {_name(other)}."
    return f"{sentence}, where {_name(other)} reaches {say(other)}."


def _robust(table: Table, say: _Speaker, column: MetricKey, attack: str) -> str:
    best, other = _best_and_rival(table, column, greater_is_better=True)
    if best is None:
        return NOTHING
    kept, clean, seeds = say(best, column), say(best), _seeds(best)
    where = f"under {attack}" + (seeds and f" ({seeds})")
    if other is None:
        return f"{_name(best)} keeps {kept} {where}" + ("." if clean == MISSING else f", of {clean} clean.")
    if kept == say(other, column):
        sentence = f"{_name(best)} and {_name(other)} both keep {kept} {where}"
    else:
        sentence = f"{_name(best)} keeps {kept} {where}, where {_name(other)} keeps {say(other, column)}"
    if MISSING in (clean, say(other)):
        return f"{sentence}."
    if clean == say(other):
        return f"{sentence}; clean, both reach {clean}."
    return f"{sentence}; clean, {_name(best)} reaches {clean} and {_name(other)} {say(other)}."


def _best_and_rival(table: Table, column: Key, greater_is_better: bool) -> tuple[Row | None, Row | None]:
    measured = [(cell.mean, row) for row in table.rows if (cell := row.cells.get(column))]
    ranked = [row for _, row in sorted(measured, key=lambda pair: pair[0], reverse=greater_is_better)]
    if not ranked:
        return None, None
    best, *others = ranked
    first = [row for row in others if row is table.rows[0]]
    return best, next(iter(first or others), None)


def _name(row: Row) -> str:
    return plain(row.key[0])


def _seeds(row: Row) -> str:
    return f"mean of {row.n} seeds" if row.n > 1 else ""

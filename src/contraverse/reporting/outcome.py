"""What came out, in one sentence, whoever won."""

from collections.abc import Sequence
from statistics import median_low

from contraverse.reporting.figures import Comparison, Measured, compare
from contraverse.reporting.names import MISSING, amount, label, plain
from contraverse.reporting.tables import Row, Table

NOTHING = "Nothing was measured."


def outcome(runs: Sequence[Measured], metric: str = "accuracy", *, greater_is_better: bool = True) -> str:
    """The best run beside the first (or, where the first is the best, beside the next best).

    With figures under attack: at the middle epsilon, and what the two give on clean data. Without any: by
    ``metric``, for which ``greater_is_better`` says which way is up.
    """
    comparison = compare(runs)
    return _robust(comparison) if comparison.attacks else _clean(comparison.table, metric, greater_is_better)


def _clean(table: Table, metric: str, greater_is_better: bool) -> str:
    ranked = _ranked(table, metric, greater_is_better)
    if not ranked:
        return NOTHING
    best, other = ranked[0], _rival(ranked, table)
    reached, seeds = _mean(best, metric, metric), _seeds(best)
    sentence = f"{_name(best)} reaches {reached} ({label(metric)}{seeds and ', ' + seeds})"
    if other is None:
        return f"{sentence}."
    theirs = _mean(other, metric, metric)
    if theirs == reached:
        return f"{sentence}, as does {_name(other)}."
    return f"{sentence}, where {_name(other)} reaches {theirs}."


def _robust(comparison: Comparison) -> str:
    table, (metric, attack) = comparison.table, comparison.attacks[0]
    columns = comparison.under(metric, attack)
    epsilon = median_low(columns)
    ranked = _ranked(table, columns[epsilon], greater_is_better=True)
    if not ranked:
        return NOTHING
    best, other = ranked[0], _rival(ranked, table)
    kept, clean, seeds = _mean(best, columns[epsilon], metric), _mean(best, metric, metric), _seeds(best)
    where = f"under {attack.upper()} at ε={epsilon:g}" + (seeds and f" ({seeds})")
    if other is None:
        return f"{_name(best)} keeps {kept} {where}" + ("." if clean == MISSING else f", of {clean} clean.")
    theirs, their_clean = _mean(other, columns[epsilon], metric), _mean(other, metric, metric)
    if kept == theirs:
        sentence = f"{_name(best)} and {_name(other)} both keep {kept} {where}"
    else:
        sentence = f"{_name(best)} keeps {kept} {where}, where {_name(other)} keeps {theirs}"
    if MISSING in (clean, their_clean):
        return f"{sentence}."
    return f"{sentence}; clean, they reach {f'{clean} both' if clean == their_clean else f'{clean} and {their_clean}'}."


def _ranked(table: Table, column: str, greater_is_better: bool) -> list[Row]:
    measured = [(cell.mean, row) for row in table.rows if (cell := row.cells.get(column))]
    return [row for _, row in sorted(measured, key=lambda pair: pair[0], reverse=greater_is_better)]


def _rival(ranked: Sequence[Row], table: Table) -> Row | None:
    first = table.rows[0]
    if ranked[0] is not first and first in ranked:
        return first
    return ranked[1] if len(ranked) > 1 else None


def _name(row: Row) -> str:
    return plain(row.key[0])


def _mean(row: Row, column: str, metric: str) -> str:
    cell = row.cells.get(column)
    return amount(cell.mean, metric) if cell else MISSING


def _seeds(row: Row) -> str:
    return f"mean of {row.n} seeds" if row.n > 1 else ""

"""Attacking a saved classifier's texts as texts, the same for a run and for ``contraverse evaluate``."""

from collections.abc import Callable

from contraverse.data import TextData
from contraverse.evasion import EvasionReport, ModelTarget, Suite, evade_suite, worst
from contraverse.evasion.suite import STANDARD
from contraverse.models import TextModel
from contraverse.recipes import EvaluationConfig

Progress = Callable[[int], None]


def suites_of(settings: EvaluationConfig) -> list[Suite]:
    """Suites of ``settings.evasion``, one for each name.

    They are checked where ``diagnostics`` is true: a number of rows is for the attack on embeddings, and these checks
    try every single edit of some rows.
    """
    budgets = tuple(sorted(set(settings.evasion_budgets))) if settings.evasion_budgets else None
    checked, kept = settings.diagnostics is True, tuple(settings.keep)
    return [Suite(name, budgets, keep=kept, diagnostics=checked) for name in settings.evasion]


def evasion_rows(rows: int, settings: EvaluationConfig) -> int:
    """Number of ``rows`` that are attacked."""
    return min(rows, settings.evasion_rows or settings.rows or rows)


def evasion_progress_total(rows: int, settings: EvaluationConfig) -> int:
    """Rows that `measure_evasion` reports to ``progress`` in all."""
    return sum(suite.total(evasion_rows(rows, settings)) for suite in suites_of(settings))


def measure_evasion(
    model: TextModel, rows: TextData, settings: EvaluationConfig, *, seed: int, progress: Progress | None = None
) -> dict[str, EvasionReport]:
    """Run the attacks of ``settings.evasion`` on `evasion_rows` of ``rows``, drawn by ``seed``.

    Returns:
        Reports by attack; of several attacks the worst for each row comes last, as ``"standard"``.

    Raises:
        UserError: the rows have no classes.
    """
    target = ModelTarget(model, "gradients", settings.batch_size)
    count = evasion_rows(len(rows), settings)
    chosen = rows.sample(count, seed) if count < len(rows) else rows
    reports: dict[str, EvasionReport] = {}
    for suite in suites_of(settings):
        reports |= evade_suite(target, chosen, suite, progress=progress)
    if len(reports) > 1 and STANDARD not in reports:
        reports[STANDARD] = worst(list(reports.values()))
    return reports

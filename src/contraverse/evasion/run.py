"""An attack on all rows of a data set, from a file where it was begun before."""

import hashlib
import time
from collections.abc import Sequence
from dataclasses import asdict

import numpy as np

from contraverse.data import TextData
from contraverse.data.encoding import matched
from contraverse.errors import UserError
from contraverse.evaluation.predict import Progress
from contraverse.evasion.asking import Asker, Attacked, row_rng
from contraverse.evasion.goals import Goal
from contraverse.evasion.outcomes import EvasionReport, Rate, RowResult
from contraverse.evasion.search import Broken, SearchSettings, TextAttack, search
from contraverse.evasion.state import State
from contraverse.evasion.targets import Target

TOGETHER = 256
"""Rows that advance together: what a search holds of them lies in memory."""


def evade(
    target: Target,
    data: TextData,
    attack: TextAttack,
    *,
    budgets: Sequence[int] = (1, 2, 4),
    goal: Goal | None = None,
    settings: SearchSettings | None = None,
    column: int = -1,
    state: State | None = None,
    progress: Progress | None = None,
) -> EvasionReport:
    """Look for the smallest change, within the largest of ``budgets``, by which each row evades the classifier.

    Rows that are classified wrongly as they are count as wrong at every budget and are not attacked. Each text that
    evades was tokenised and classified anew, and once more by itself. A row that a budget breaks is broken at every
    larger one.

    Args:
        target: the classifier.
        data: labelled rows of one text, or of pairs.
        attack: which changes there are.
        budgets: numbers of changes, >= 1.
        goal: any other class by default.
        settings: how hard is searched.
        column: which text of a pair is attacked; the last by default.
        state: results known from an earlier call, to which those of this one are added as they come.
        progress: called with the number of rows that are settled; they add up to the rows of ``data``.

    Raises:
        UserError: the rows have no classes, or others than the classifier's, or a budget is not at least 1.
    """
    goal, settings = goal or Goal(), settings or SearchSettings()
    chosen = check_budgets(budgets)
    data = rows_of(data, target)
    if data.labels is None or data.label_names is None:
        raise UserError("evasion is measured on rows with classes, and these have none")
    if goal.against is not None and not 0 <= goal.against < len(target.labels):
        raise UserError(f"the classifier has no class {goal.against}")
    began, labels = time.perf_counter(), np.asarray(data.labels)
    asker = Asker(target, goal)
    column = range(len(data.columns))[column]
    results = clean_results(asker, data, labels)
    known = state.known(attack.name) if state else {}
    for result in results:
        result.attacked = result.right and bool(goal.wants(labels[[result.row]])[0])
        result.by = attack.name
        stored = known.get(result.row)
        if stored is not None and result.attacked:
            results[result.row] = stored
    if progress:
        progress(sum(not result.attacked or result.row in known for result in results))
    waiting = [result.row for result in results if result.attacked and result.row not in known]

    def settled(row: Attacked, broken: Broken | None, doubtful: int) -> None:
        result = results[row.row]
        result.queries, result.doubtful = row.queries, doubtful
        if broken is not None:
            result.changes, result.rewritten = broken.changes, row.with_text(broken.text)
            result.prediction_rewritten, result.pushed_out = broken.prediction, broken.pushed_out
        if state:
            state.note(attack.name, result)
        if progress:
            progress(1)

    for first in range(0, len(waiting), TOGETHER):
        rows = [attacked(target, data, labels, row, column, settings) for row in waiting[first : first + TOGETHER]]
        search(asker, rows, attack, chosen[-1], settings, settled)
    report = EvasionReport(
        attack.name, attack.unit, chosen, target.labels, goal.against, results, data.texts,
        {**asdict(settings), "access": target.access, "threshold": goal.threshold},
        asker.texts, seconds=time.perf_counter() - began,
    )  # fmt: skip
    if doubts := sum(result.doubtful for result in results):
        report.notes.append(f"{doubts} texts were wrong in a batch and right alone: rounding decides them, none counts")
    pushed = report.pushed_out()
    if pushed.hits:
        held = Rate(report.accuracy(None).hits + pushed.hits, len(results)).percent
        report.notes.append(
            f"{pushed.hits} of the {pushed.n} rows that broke did so by pushing text out of the model's window, its "
            f"longest input (pushed_out in the files); without these accuracy is {held:.1f}"
        )
    return report


def attacked(
    target: Target, data: TextData, labels: np.ndarray, row: int, column: int, settings: SearchSettings
) -> Attacked:
    """Give a row as the search takes it."""
    texts = data.texts[row]
    rng = row_rng(settings.seed, texts)
    return Attacked(row, texts, column, int(labels[row]), rng, target.seen(texts, column))


def rows_of(data: TextData, target: Target) -> TextData:
    """Give ``data`` with the classifier's class ids."""
    rows = matched(data, target.labels)
    assert isinstance(rows, TextData)
    return rows


def check_budgets(budgets: Sequence[int]) -> tuple[int, ...]:
    """Give ``budgets`` in ascending order, each once.

    Raises:
        UserError: there are none, or one is below 1.
    """
    if not budgets or min(budgets) < 1:
        raise UserError("a budget is a number of changes of at least 1", hint="give one or more, as 1,2,4")
    return tuple(sorted(set(budgets)))


def clean_results(asker: Asker, data: TextData, labels: np.ndarray) -> list[RowResult]:
    """Classify each row as it is.

    Where there is a class to evade, its rows are right if it is detected, and rows of others if they get their own
    class and it is not.
    """
    scores, goal = asker.scores(data.texts), asker.goal
    predictions, right = scores.argmax(1), goal.holds(scores, labels)
    if goal.against is not None:
        others = labels != goal.against
        flagged = goal.holds(scores, np.full(len(labels), goal.against))
        rest = scores.copy()
        rest[:, goal.against] = -np.inf
        right = np.where(others, ~flagged & (rest.argmax(1) == labels), right)
        predictions = np.where(flagged, goal.against, rest.argmax(1))
    return [
        RowResult(row, int(labels[row]), int(predictions[row]), bool(right[row]), False) for row in range(len(labels))
    ]


def worst(reports: Sequence[EvasionReport]) -> EvasionReport:
    """Give the worst of several attacks for each row, each at its largest budget.

    ``changes`` is 1 where a row is broken: units differ. The text is the one of the first attack that broke it.
    """
    first = reports[0]
    rows = []
    for results in zip(*(report.rows for report in reports), strict=True):
        broken = next((result for result in results if result.changes is not None), results[0])
        combined = RowResult(**{**vars(broken), "queries": sum(result.queries for result in results)})
        combined.changes = None if broken.changes is None else 1
        combined.attacked = any(result.attacked for result in results)
        rows.append(combined)
    limits = ", ".join(f"{report.attack} {report.budgets[-1]} {report.unit}" for report in reports)
    return EvasionReport(
        "standard", "attacks", (1,), first.labels, first.against, rows, first.texts,
        {"attacks": limits}, sum(report.forwards for report in reports),
        seconds=sum(report.seconds for report in reports),
    )  # fmt: skip


def digest_of_rows(data: TextData) -> str:
    """Give a fingerprint of texts and labels."""
    content = repr((list(data.texts), data.labels, data.label_names))
    return hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest()[:16]

"""Is the attack to be believed? On a few rows it is compared with chance and, for one change, with every change.

As `contraverse.evaluation.diagnostics` does for perturbations of embeddings.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from contraverse.data import TextData
from contraverse.evaluation.predict import Progress
from contraverse.evasion.asking import Asker, Attacked, row_rng
from contraverse.evasion.changes import shifted
from contraverse.evasion.outcomes import EvasionReport, Rate
from contraverse.evasion.run import attacked, rows_of
from contraverse.evasion.search import Node, SearchSettings, TextAttack

ROWS, EXACT_ROWS = 32, 8
"""Rows that are compared with chance, and rows of which every change is tried."""
EXACT_TEXTS = 20_000
"""A row with more single changes than this is not tried exhaustively."""
CHUNK = 1024
"""Texts of a row that are tried at a time until one breaks it."""
RECOVERED = 0.95
"""Share of the rows that some single change breaks, of which the search must break so many."""


@dataclass(frozen=True)
class Belief:
    """Results of the checks of an attack.

    Attributes:
        random: rows that random changes broke, by budget, of the rows that were tried.
        attack: rows of the same that the attack broke, by budget.
        exact: rows that some single change breaks, of those of which every one was tried.
        recovered: of these the rows that the search broke with one change.
        exact_texts: single changes that were tried.
        warnings: what is amiss, a sentence each; empty where the attack passes.
    """

    random: dict[int, Rate]
    attack: dict[int, Rate]
    exact: Rate
    recovered: Rate
    exact_texts: int
    warnings: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "random": [{"budget": budget, **rate.to_dict()} for budget, rate in self.random.items()],
            "attack": [{"budget": budget, **rate.to_dict()} for budget, rate in self.attack.items()],
            "exact": self.exact.to_dict(),
            "recovered": self.recovered.to_dict(),
            "exact_texts": self.exact_texts,
        }


def believe(
    asker: Asker,
    data: TextData,
    attack: TextAttack,
    report: EvasionReport,
    settings: SearchSettings,
    *,
    column: int = -1,
    rows: int = ROWS,
    exact_rows: int = EXACT_ROWS,
    progress: Progress | None = None,
) -> Belief:
    """Compare an attack's report with chance and with the exact worst case of one change.

    - As many changes drawn at random break fewer rows.
    - Every single change of a few rows is tried: the search must break 95 % of the rows that one of them breaks.

    Rows are drawn by the seed among those attacked. A larger budget breaks whatever a smaller one does, by the search's
    construction: it has one depth for each change.

    Args:
        asker: the classifier that was attacked.
        data: the rows of ``report``.
        attack: what was attacked with.
        report: its results.
        settings: the search's.
        column: which text of a pair.
        rows, exact_rows: how many are tried.
        progress: called with the number of rows that are done; ``rows + exact_rows`` at most.
    """
    data = rows_of(data, asker.target)
    labels, index = np.asarray(data.labels), range(len(data.columns))[column]
    chosen = [result for result in report.rows if result.attacked]
    order = np.random.default_rng(settings.seed).permutation(len(chosen))[: max(rows, exact_rows)]
    sample = [chosen[i] for i in order]
    live = [attacked(asker.target, data, labels, result.row, index, settings) for result in sample]
    random, broken = dict[int, Rate](), dict[int, Rate]()
    few = min(rows, len(sample))
    for budget in report.budgets:
        texts = [_random_text(row, attack, budget, settings.seed) for row in live[:few]]
        answers = asker.margins([(row, [text]) for row, text in zip(live[:few], texts, strict=True)])
        random[budget] = Rate(sum(not holds[0] for _, holds in answers), few)
        wins = sum(result.changes is not None and result.changes <= budget for result in sample[:few])
        broken[budget] = Rate(wins, few)
    if progress:
        progress(few)
    breakable, broken_by_search, tried, exact = 0, 0, 0, 0
    for result, row in zip(sample[:exact_rows], live[:exact_rows], strict=True):
        texts = every_change(row, attack)
        if progress:
            progress(1)
        if not 0 < len(texts) <= EXACT_TEXTS:
            continue
        exact += 1
        tried += len(texts)
        if _breaks(asker, row, attack, texts):
            breakable += 1
            broken_by_search += result.changes == 1
    belief = Belief(random, broken, Rate(breakable, exact), Rate(broken_by_search, breakable), tried)
    belief.warnings.extend(_warnings(belief, attack))
    return belief


def every_change(row: Attacked, attack: TextAttack) -> list[str]:
    """List the texts that one change makes of a row, each once."""
    node = Node(row.text, 0.0, row.label)
    texts = (
        change.apply(row.text) for place in attack.places(node, row.seen) for change in attack.changes(node, place)
    )
    return [text for text in dict.fromkeys(texts) if text != row.text and text.strip()]


def _breaks(asker: Asker, row: Attacked, attack: TextAttack, texts: Sequence[str]) -> bool:
    """Tell if one of the texts is classified wrongly, alone as well, and admitted."""
    for first in range(0, len(texts), CHUNK):
        some = texts[first : first + CHUNK]
        ((_, holds),) = asker.margins([(row, some)])
        wrong = [text for text, held in zip(some, holds, strict=True) if not held]
        for text, ok in zip(wrong, attack.admits(row.row, wrong) if wrong else [], strict=True):
            if ok and not asker.alone(row.with_text(text), row.label)[0]:
                return True
    return False


def _random_text(row: Attacked, attack: TextAttack, budget: int, seed: int) -> str:
    """A text that ``budget`` changes make, each drawn among a random place's."""
    rng = row_rng(seed + 1, row.texts)
    node = Node(row.text, 0.0, row.label)
    for _ in range(budget):
        places = attack.places(node, len(node.text) if row.seen >= len(row.text) else row.seen)
        options = attack.changes(node, places[int(rng.integers(len(places)))]) if places else []
        if not options:
            break
        change = options[int(rng.integers(len(options)))]
        text = change.apply(node.text)
        if not text.strip():
            break
        node = Node(text, 0.0, row.label, shifted(node.locked, change) + attack.locks(node, change))
    return node.text


def _warnings(belief: Belief, attack: TextAttack) -> list[str]:
    warnings = []
    for budget, by_chance in belief.random.items():
        by_attack = belief.attack[budget]
        if by_chance.hits > 1 and by_chance.hits >= by_attack.hits < by_attack.n:
            warnings.append(
                f"{attack.name}: chance does as much harm as the attack: {budget} random {attack.unit} broke "
                f"{by_chance.hits} of {by_chance.n} rows and the search {by_attack.hits}; search wider"
            )
    share = belief.recovered
    if share.n and share.hits < RECOVERED * share.n:
        warnings.append(
            f"{attack.name}: the search broke {share.hits} of the {share.n} rows that some single change breaks "
            f"(every one of {belief.exact_texts:,} was tried on {belief.exact.n} rows); search wider"
        )
    return warnings

"""Results of an attack: rows, rates with their intervals, and texts that evaded the classifier."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

import numpy as np
from scipy.stats import binomtest

from contraverse.evaluation.adversaries.rewriting import edits, words_of
from contraverse.evaluation.keys import MetricKey
from contraverse.evaluation.paired import pack_rows


class Rate(NamedTuple):
    """``hits`` of ``n``."""

    hits: int
    n: int

    @property
    def percent(self) -> float | None:
        """The rate, 0 to 100; None of nothing."""
        return 100 * self.hits / self.n if self.n else None

    @property
    def interval(self) -> tuple[float, float] | None:
        """Wilson's 95 % interval in percent; None of nothing."""
        if not self.n:
            return None
        bounds = binomtest(self.hits, self.n).proportion_ci(method="wilson")
        return 100 * float(bounds.low), 100 * float(bounds.high)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        low, high = self.interval or (None, None)
        return {"percent": self.percent, "hits": self.hits, "n": self.n, "low": low, "high": high}


@dataclass
class RowResult:
    """One row under attack.

    Attributes:
        row: its number in the data.
        label, prediction: ids of its class and of the one predicted clean.
        right: True where it is classified rightly clean; others are not attacked.
        attacked: True where it was attacked.
        changes: least number of changes that evaded the classifier; None where none did.
        rewritten: the texts then.
        prediction_rewritten: id of the class then.
        queries: distinct texts asked for the row, and gradients.
        doubtful: texts that evaded in a batch and not alone, which do not count.
        by: name of the attack.
        pushed_out: True where the text that evaded has more tokens than the classifier reads, and the original without
            the part that is read no more evades as well.
    """

    row: int
    label: int
    prediction: int
    right: bool
    attacked: bool
    changes: int | None = None
    rewritten: tuple[str, ...] | None = None
    prediction_rewritten: int | None = None
    queries: int = 0
    doubtful: int = 0
    by: str = ""
    pushed_out: bool = False


@dataclass(frozen=True)
class Success:
    """A text that evades the classifier, in the form of `contraverse.evaluation.adversaries.Adversary`.

    ``data.adversaries`` trains on it. ``original`` and ``rewritten`` are texts, or lists of the two of a pair;
    ``edits`` and ``share`` count the words and signs that differ, as there; ``changes`` counts what the budget does.
    ``pushed_out``: as of `RowResult`.
    """

    original: str | list[str]
    rewritten: str | list[str]
    label: str
    prediction_original: str
    prediction_rewritten: str
    edits: int
    share: float
    attack: str
    changes: int
    pushed_out: bool = False

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


@dataclass
class EvasionReport:
    """Results of an attack on the N texts of a data set. All rates are worst cases of a row.

    Attributes:
        attack: its name.
        unit: what its budget counts.
        budgets: ascending.
        labels: names of the classes.
        against: id of the class that was evaded, or None.
        rows: results by row.
        texts: the originals.
        settings: of the search, for JSON.
        forwards: distinct texts that the classifier was asked for, over all rows.
        checks: whether the attack is to be believed, or None where that was not asked.
        warnings: what is to be doubted, a sentence each.
        notes: what was decided, a sentence each.
        seconds: wall clock.
    """

    attack: str
    unit: str
    budgets: tuple[int, ...]
    labels: list[str]
    against: int | None
    rows: list[RowResult] = field(repr=False)
    texts: Sequence[tuple[str, ...]] = field(repr=False)
    settings: dict[str, Any] = field(default_factory=dict)
    forwards: int = 0
    checks: Any = None
    warnings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def accuracy(self, budget: int | None = 0) -> Rate:
        """Rows that are right under every text within ``budget``, of all; 0 is clean, None the largest budget."""
        return Rate(sum(self._holds(row, budget) for row in self.rows), len(self.rows))

    def recall(self, label: int, budget: int | None = 0) -> Rate:
        """The same of the rows of one class."""
        mine = [row for row in self.rows if row.label == label]
        return Rate(sum(self._holds(row, budget) for row in mine), len(mine))

    def flip_rate(self, label: int | None = None, budget: int | None = None) -> Rate:
        """Rows broken within ``budget``, of those that were attacked: right clean, and of one class or of all."""
        mine = [row for row in self.rows if row.attacked and label in (None, row.label)]
        return Rate(sum(not self._holds(row, budget) for row in mine), len(mine))

    def pushed_out(self, budget: int | None = None) -> Rate:
        """Rows broken within ``budget`` by pushing text out of the classifier's window, of those broken."""
        mine = [row for row in self.rows if row.attacked and not self._holds(row, budget)]
        return Rate(sum(row.pushed_out for row in mine), len(mine))

    @property
    def right(self) -> dict[str, str]:
        """Rows that are right within each budget, as `pack_rows` writes them, by the name of the metric."""
        held = {budget: np.array([self._holds(row, budget) for row in self.rows], bool) for budget in self.budgets}
        return {str(MetricKey("accuracy", self.attack, budget)): pack_rows(rows) for budget, rows in held.items()}

    def _holds(self, row: RowResult, budget: int | None) -> bool:
        limit = self.budgets[-1] if budget is None else budget
        return row.right and (row.changes is None or row.changes > limit)

    @property
    def broken(self) -> list[RowResult]:
        """Rows that some text within the largest budget broke."""
        return [row for row in self.rows if row.changes is not None]

    @property
    def successes(self) -> list[Success]:
        """Every text that evaded the classifier."""
        results = []
        for row in self.broken:
            assert row.rewritten is not None
            assert row.changes is not None
            original = self.texts[row.row]
            differ = sum(edits(old, new) for old, new in zip(original, row.rewritten, strict=True))
            words = sum(len(words_of(text)) for text in original)
            results.append(
                Success(
                    _plain(original),
                    _plain(row.rewritten),
                    self.labels[row.label],
                    self.labels[row.prediction],
                    self.labels[row.prediction_rewritten or 0],
                    differ,
                    differ / max(1, words),
                    row.by or self.attack,
                    row.changes,
                    row.pushed_out,
                )
            )
        return results

    @property
    def mean_queries(self) -> float | None:
        """Texts and gradients asked a row that was attacked; None where none was."""
        asked = [row.queries for row in self.rows if row.attacked]
        return sum(asked) / len(asked) if asked else None

    @property
    def mean_changes(self) -> float | None:
        """Changes in the texts that evaded; None where none did."""
        counts = [row.changes for row in self.rows if row.changes is not None]
        return sum(counts) / len(counts) if counts else None

    def to_dict(self) -> dict[str, Any]:
        """The figures, without the texts, for JSON."""
        classes = [self.against] if self.against is not None else range(len(self.labels))
        return {
            "attack": self.attack,
            "unit": self.unit,
            "budgets": list(self.budgets),
            "against": None if self.against is None else self.labels[self.against],
            "rows": len(self.rows),
            "attacked": sum(row.attacked for row in self.rows),
            "wrong_clean": sum(not row.right for row in self.rows),
            "clean": self._rates(0, classes),
            "at": [{"budget": budget, **self._rates(budget, classes)} for budget in self.budgets],
            "queries": self.mean_queries,
            "changes": self.mean_changes,
            "forwards": self.forwards,
            "settings": self.settings,
            "checks": None if self.checks is None else self.checks.to_dict(),
            "warnings": self.warnings,
            "notes": self.notes,
            "seconds": round(self.seconds, 2),
        }

    def _rates(self, budget: int, classes: Any) -> dict[str, Any]:
        named = {self.labels[i]: i for i in classes}
        rates: dict[str, Any] = {
            "accuracy": self.accuracy(budget).to_dict(),
            "recall": {name: self.recall(i, budget).to_dict() for name, i in named.items()},
        }
        if budget:
            rates["flip_rate"] = self.flip_rate(None, budget).to_dict()
            rates["pushed_out"] = self.pushed_out(budget).to_dict()
            rates["flip_rate_by_class"] = {name: self.flip_rate(i, budget).to_dict() for name, i in named.items()}
        return rates


def _plain(texts: tuple[str, ...]) -> str | list[str]:
    return texts[0] if len(texts) == 1 else list(texts)

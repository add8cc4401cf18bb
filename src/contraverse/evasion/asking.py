"""Questions to a classifier: each distinct text once, counted by row."""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from contraverse.evasion.goals import Goal
from contraverse.evasion.targets import Gradients, ModelTarget, Target, Texts

CACHED = 200_000
"""Texts whose scores are remembered."""


@dataclass
class Attacked:
    """A row under attack.

    Attributes:
        row: its number in the data.
        texts: one, or two of a pair.
        column: which of them is attacked.
        label: id of its class.
        rng: its own random numbers, from the seed and its texts alone, whatever rows are beside it.
        queries: distinct texts that the classifier was asked for, and gradients.
        seen: code points of the attacked text that the classifier reads.
    """

    row: int
    texts: Texts
    column: int
    label: int
    rng: np.random.Generator
    seen: int
    queries: int = 0

    @property
    def text(self) -> str:
        """The text that is attacked, as it was."""
        return self.texts[self.column]

    def with_text(self, text: str) -> Texts:
        """Give the row's texts with another in the place of the attacked one."""
        return (*self.texts[: self.column], text, *self.texts[self.column + 1 :])


def row_rng(seed: int, texts: Texts) -> np.random.Generator:
    """Give the random numbers of a row: of the seed and its texts, not of its number."""
    return np.random.default_rng([seed, *(zlib.crc32(text.encode("utf-8", "surrogatepass")) for text in texts)])


@dataclass
class Asker:
    """Asks ``target`` for many rows at once, and remembers the answers.

    Attributes:
        texts: distinct texts asked in all.
        forwards: those that went to the classifier, which others were not: their answer was there already.
    """

    target: Target
    goal: Goal
    texts: int = 0
    gradients: int = 0
    _known: dict[Texts, np.ndarray] = field(default_factory=dict, repr=False)

    def margins(self, asked: Sequence[tuple[Attacked, Sequence[str]]]) -> list[tuple[np.ndarray, np.ndarray]]:
        """Give for each row's texts the margins (N,) and which of them still hold (N,).

        All texts of all rows are one length-grouped batch. Counts each row's texts as its queries.
        """
        rows = [[row.with_text(text) for text in texts] for row, texts in asked]
        for (row, _), texts in zip(asked, rows, strict=True):
            row.queries += len(set(texts))
        scores = self.scores([texts for row in rows for texts in row])
        results, first = [], 0
        for (row, _), texts in zip(asked, rows, strict=True):
            mine = scores[first : first + len(texts)]
            labels = np.full(len(texts), row.label)
            results.append((self.goal.margins(mine, labels), self.goal.holds(mine, labels)))
            first += len(texts)
        return results

    def scores(self, rows: Sequence[Texts]) -> np.ndarray:
        """Give the scores (N, C) of rows of texts, each distinct one asked once."""
        if len(self._known) > CACHED:
            self._known.clear()
        new = [texts for texts in dict.fromkeys(rows) if texts not in self._known]
        if new:
            self.texts += len(new)
            self._known.update(zip(new, self.target.scores(new), strict=True))
        width = len(self.target.labels)
        return np.stack([self._known[texts] for texts in rows]) if rows else np.zeros((0, width), dtype=np.float32)

    def alone(self, texts: Texts, label: int) -> tuple[bool, int]:
        """Ask for one row by itself, whatever was remembered: if it holds, and its predicted class."""
        scores = self.target.scores([texts])
        return bool(self.goal.holds(scores, np.array([label]))[0]), int(scores[0].argmax())

    def gradients_at(self, asked: Sequence[tuple[Attacked, str]]) -> list[Gradients]:
        """Give the gradients of the margins at the tokens of each text."""
        assert isinstance(self.target, ModelTarget)
        for row, _ in asked:
            row.queries += 1
        self.gradients += len(asked)
        if not asked:
            return []
        rows = [row.with_text(text) for row, text in asked]
        labels = np.array([row.label for row, _ in asked])
        return self.target.gradients(rows, asked[0][0].column, self.goal.tensor_margins, labels)

"""Rows with noise, and a model's answers to them; each distinct row is computed once."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import regex

from contraverse.data import TextData
from contraverse.evaluation.noise.report import NoiseSettings
from contraverse.noise import NoisyText, noisy

Texts = tuple[str, ...]
_POOL_WORD = regex.compile(r"\p{L}{3,}")


class NoisyRow(NamedTuple):
    """A row with noise: its texts, and for each column that was changed the result."""

    texts: Texts
    results: dict[int, NoisyText]

    @property
    def eligible(self) -> int:
        """Places that the kind could have edited, over the columns."""
        return sum(result.eligible for result in self.results.values())


def noisy_rows(
    texts: Sequence[Texts],
    kind: str,
    strength: int,
    draw: int,
    settings: NoiseSettings,
    pools: Sequence[Sequence[str]] | None = None,
) -> list[NoisyRow]:
    """Each of ``texts`` with noise on the columns of ``settings``; ``draw`` counts from 0."""
    columns = settings.columns(len(texts[0]))
    results = {
        column: noisy(
            [row[column] for row in texts],
            kind,
            strength,
            ("evaluation", settings.seed, draw, column),
            pools=pools,
            keep=settings.keep,
        )
        for column in columns
    }
    return [
        NoisyRow(
            tuple(results[i][row].text if i in results else text for i, text in enumerate(columns_of_row)),
            {column: results[column][row] for column in columns},
        )
        for row, columns_of_row in enumerate(texts)
    ]


def word_pools(train: TextData | None, rows: TextData) -> list[Sequence[str]] | None:
    """Words for ``append`` and ``prepend``, of each row: the distinct ones of training rows of other classes.

    Classes are matched by their names. None, which stands for everyday words, where there are no training rows or no
    classes.
    """
    if train is None or train.labels is None or train.label_names is None or rows.label_names is None:
        return None
    words: dict[str, dict[str, None]] = {}
    for texts, label in zip(train.texts, train.labels, strict=True):
        known = words.setdefault(train.label_names[int(label)], {})
        known.update(dict.fromkeys(word for text in texts for word in _POOL_WORD.findall(text.lower())))
    pools = {
        name: tuple(dict.fromkeys(word for other, known in words.items() if other != name for word in known))
        for name in rows.label_names
    }
    return [pools[rows.label_names[int(label)]] for label in rows.labels or ()]


Key = tuple[tuple[int, ...], ...]
"""Tokens of a row; rows with the same tokens have the same answer."""


class Answers:
    """Answers of a model (..., ) to texts, each distinct sequence of tokens asked for once while it is remembered.

    Args:
        tokenize: texts to their tokens, in order.
        ask: texts to answers (N, ...), in order.
        texts: without noise, asked at once and remembered always.
    """

    def __init__(
        self,
        tokenize: Callable[[list[Texts]], list[Key]],
        ask: Callable[[list[Texts]], np.ndarray],
        texts: Sequence[Texts],
    ) -> None:
        self._tokenize, self._ask = tokenize, ask
        self._by_key: dict[Key, np.ndarray] = {}
        self._keys: dict[Texts, Key] = {}
        self.asked = 0
        self.clean = self(texts)
        self._clean_keys, self._clean_by_key = dict(self._keys), dict(self._by_key)

    def __call__(self, texts: Sequence[Texts]) -> np.ndarray:
        """Answers to ``texts``, in order."""
        unknown = [text for text in dict.fromkeys(texts) if text not in self._keys]
        if unknown:
            self._keys.update(zip(unknown, self._tokenize(unknown), strict=True))
        first = {self._keys[text]: text for text in reversed(unknown)}
        missing = {key: text for key, text in first.items() if key not in self._by_key}
        if missing:
            self.asked += len(missing)
            self._by_key.update(zip(missing, self._ask(list(missing.values())), strict=True))
        return np.stack([self._by_key[self._keys[text]] for text in texts])

    def same_tokens(self, texts: Sequence[Texts], clean: Sequence[Texts]) -> np.ndarray:
        """(N,) bool: ``texts``, which were asked, that have the tokens of those in ``clean``."""
        return np.array([self._keys[a] == self._keys[b] for a, b in zip(texts, clean, strict=True)], dtype=bool)

    def forget(self) -> None:
        """Forget all texts but the clean ones."""
        self._keys, self._by_key = dict(self._clean_keys), dict(self._clean_by_key)

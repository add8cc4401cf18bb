"""Words or a phrase before or after a text, which itself stays."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from contraverse.data import TextData
from contraverse.errors import UserError
from contraverse.evaluation.adversaries.rewriting import words_of
from contraverse.evasion.changes import Change, Span
from contraverse.evasion.search import FreeAttack, Node
from contraverse.noise.additions import HARMLESS

Where = Literal["before", "after", "both"]
POOL = 50
"""Words of a pool that is read off labelled rows."""


class Append(FreeAttack):
    """At most m words of a pool, or a phrase, before or after the text.

    Args:
        pool: words that may be added, each as often as the budget allows, or phrases, each of which counts as one; or
            such a pool for each class id.
        where: ``"before"``, ``"after"``, or ``"both"`` for either side.

    Raises:
        UserError: the pool is empty, or a word of it holds nothing.
    """

    name, unit, ranked = "append", "words added", False

    def __init__(self, pool: Sequence[str] | Mapping[int, Sequence[str]] = HARMLESS, where: Where = "both") -> None:
        if where not in get_args(Where):
            raise UserError(f"words are added before, after or both, not {where!r}")
        pools = pool if isinstance(pool, Mapping) else {None: pool}
        if not pools or not all(words and all(word.strip() for word in words) for words in pools.values()):
            raise UserError("the pool of words to append is empty, or a word of it is")
        self.pools = {label: tuple(dict.fromkeys(word.strip() for word in words)) for label, words in pools.items()}
        self.where = where

    def places(self, node: Node, seen: int) -> list[Span]:
        """List the two ends of the text, or the one that was asked for; not an end that is not read."""
        end = len(node.text)
        before = [Span(0, 0)] if self.where != "after" else []
        return before + ([Span(end, end)] if self.where != "before" and seen >= end else [])

    def changes(self, node: Node, place: Span) -> list[Change]:
        """List each word of the pool at that end, with a space between."""
        pool = self.pools.get(None) or self.pools.get(node.label, ())
        if place.start:
            return [Change(*place, f" {word}") for word in pool]
        return [Change(0, 0, f"{word} ") for word in pool]

    def locks(self, node: Node, change: Change) -> tuple[Span, ...]:
        """List nothing: every word may be followed by another."""
        return ()


def pool_of_file(file: Path) -> list[str]:
    """Read words or phrases, one a line; empty lines are left out.

    Raises:
        UserError: there is no such file, it is not UTF-8, or it holds none.
    """
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError("cannot be read as lines of UTF-8 text", where=str(file)) from error
    pool = [line.strip() for line in lines if line.strip()]
    if not pool:
        raise UserError("holds no word to append", where=str(file))
    return pool


def pools_of_classes(data: TextData, column: int) -> dict[int, list[str]]:
    """Read off labelled rows, for each class, the words that speak most for another one.

    Words of letters alone in at least two rows, by the log ratio of the shares of rows that hold them; up to `POOL`.
    They may change what a text says; a row of the same class elsewhere shows if they do.
    """
    assert data.labels is not None
    labels = np.asarray(data.labels)
    counts: dict[int, Counter[str]] = {int(label): Counter() for label in np.unique(labels)}
    for texts, label in zip(data.texts, labels.tolist(), strict=True):
        counts[label].update({word for word in map(str.lower, words_of(texts[column])) if word.isalpha()})
    pools = {}
    for label in counts:
        mine, others = counts[label], sum((counts[other] for other in counts if other != label), Counter[str]())
        here, there = int((labels == label).sum()), int((labels != label).sum())
        ratio = {
            word: np.log((count + 0.5) / (there + 1)) - np.log((mine[word] + 0.5) / (here + 1))
            for word, count in others.items()
            if count + mine[word] >= 2
        }
        pools[label] = sorted(ratio, key=lambda word: (-ratio[word], word))[:POOL]
    return pools

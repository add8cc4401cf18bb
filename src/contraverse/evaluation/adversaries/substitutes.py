"""Substitutes for words that are likely to leave a sentence's meaning as it is. The rules are for English."""

import torch
import torch.nn.functional as F
from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS
from torch import Tensor

from contraverse.evaluation.adversaries.rewriting import Vocabulary

_ENDINGS = ("ing", "ed", "ly", "est", "er")
_NOT = (["'", "t"], ["’", "t"])
_NO_PLURALS = ("ss", "us", "is")


class Substitutes:
    """For each token of a vocabulary the tokens that may replace it.

    Both are whole words of two letters or more and letters alone, and no function words (scikit-learn's English list,
    which holds negations, pronouns, numerals and degrees); both have the same `ending`; they are not `akin`; and the
    cosine of their word embeddings is ``least`` or more.

    Args:
        vocabulary: of V tokens.
        table: (V, D), their word embeddings.
        least: -1 to 1; a coarse sieve, which good and bad (.53 in MiniLM) pass.
    """

    def __init__(self, vocabulary: Vocabulary, table: Tensor, least: float = 0.35) -> None:
        self.vocabulary = vocabulary
        self.surface = [text.lower() for text in vocabulary.surface]
        whole = vocabulary.usable & vocabulary.starts
        self.words = [i for i, word in enumerate(self.surface) if bool(whole[i]) and is_content(word)]
        self._content = {token: place for place, token in enumerate(self.words)}
        self.table, self.least = F.normalize(table.detach().float()[self.words], dim=1), least
        self._starts = vocabulary.starts
        self._known: dict[int, Tensor] = {}

    def places(self, ids: list[int]) -> list[int]:
        """The positions of ``ids`` with a word that may be replaced, neither continued by a token nor by ``'t``."""
        follow = [*ids[1:], None]
        negated = {i for i in range(len(ids) - 2) if [self.surface[j] for j in ids[i + 1 : i + 3]] in _NOT}
        return [
            i
            for i, (token, after) in enumerate(zip(ids, follow, strict=True))
            if token in self._content and i not in negated and not (after is not None and self._continues(after))
        ]

    def of(self, token: int) -> Tensor:
        """The tokens (S,) that may replace this one; none where it is not replaced itself."""
        if token not in self._content:
            return torch.empty(0, device=self.table.device, dtype=torch.long)
        if token not in self._known:
            near = (self.table @ self.table[self._content[token]] >= self.least).nonzero()[:, 0].tolist()
            near, old = [self.words[place] for place in near], self.surface[token]
            fit = [i for i in near if ending(self.surface[i]) == ending(old) and not akin(self.surface[i], old)]
            self._known[token] = torch.tensor(fit, device=self.table.device, dtype=torch.long)
        return self._known[token]

    def nearest(self, token: int, count: int) -> list[int]:
        """List up to ``count`` of the tokens that may replace this one, the most similar first."""
        others = self.of(token).tolist()
        if not others:
            return []
        cosines = self.table[[self._content[other] for other in others]] @ self.table[self._content[token]]
        order = cosines.argsort(descending=True, stable=True)[:count].tolist()
        return [others[i] for i in order]

    def _continues(self, token: int) -> bool:
        return not bool(self._starts[token]) and self.surface[token][:1].isalnum()


def is_content(word: str) -> bool:
    """True for a lower-case word that has two letters or more, nothing but letters, and is no function word."""
    return len(word) > 1 and word.isalpha() and word not in ENGLISH_STOP_WORDS


def ending(word: str) -> str:
    """The inflection that a lower-case word shows: ``ing``, ``ed``, ``ly``, ``est``, ``er``, ``s``, or nothing."""
    for suffix in _ENDINGS:
        if word.endswith(suffix) and len(word) > len(suffix) + 2:
            return suffix
    return "s" if word.endswith("s") and not word.endswith(_NO_PLURALS) else ""


def akin(a: str, b: str) -> bool:
    """True for two words that look like forms of one: film, filmed; comedy, comedic; pleasant, unpleasant.

    One holds the other, or all but two letters of the shorter, three or more, begin both.
    """
    shorter = min(len(a), len(b))
    common = next((i for i in range(shorter) if a[i] != b[i]), shorter)
    return a in b or b in a or common >= max(3, shorter - 2)

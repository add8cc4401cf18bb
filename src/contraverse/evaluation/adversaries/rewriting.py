"""From replaced tokens to a text, and how far two texts are apart."""

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch

from contraverse.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_CONTROL = re.compile(r"[\[<].+[\]>]")
_WORD_STARTS = ("▁", "Ġ")
_WORDS = re.compile(r"\w+(?:['’]\w+)*|[^\w\s]")


class Vocabulary:
    """Tokens of a tokenizer as they are written in a text.

    Attributes:
        surface: of each of the V tokens, without the sign of a word's start or continuation.
        starts: (V,) bool, True for tokens that begin a word.
        usable: (V,) bool, False for special and control tokens and those without text, which replace nothing.
    """

    def __init__(self, tokenizer: "PreTrainedTokenizerBase", size: int) -> None:
        self.tokenizer = tokenizer
        known = min(size, len(tokenizer))
        tokens = [str(token) for token in tokenizer.convert_ids_to_tokens(list(range(known)))]
        marked = any(token.startswith(_WORD_STARTS) for token in tokens)
        if marked:
            self.surface = [text.strip() for text in tokenizer.batch_decode([[i] for i in range(known)])]
            starts = [token.startswith(_WORD_STARTS) for token in tokens]
        else:
            self.surface = [token.removeprefix("##") for token in tokens]
            starts = [not token.startswith("##") for token in tokens]
        special = set(tokenizer.all_special_ids)
        usable = [
            i not in special and text != "" and "\ufffd" not in text and not _CONTROL.fullmatch(token)
            for i, (token, text) in enumerate(zip(tokens, self.surface, strict=True))
        ]
        missing = [False] * (size - known)
        self.starts = torch.tensor(starts + missing)
        self.usable = torch.tensor(usable + missing)

    def splice(self, text: str, replaced: Mapping[int, int], max_length: int) -> str:
        """``text`` with some of its tokens replaced, the rest as it was written.

        Args:
            text: as it was tokenised, alone and cut at ``max_length`` tokens.
            replaced: ``{position: token}``; each token begins a word if the one that stood there did.
        """
        encoded = self.tokenizer(text, truncation=True, max_length=max_length, return_offsets_mapping=True)
        spans, ids = encoded["offset_mapping"], encoded["input_ids"]
        pieces, done = [], 0
        for position in sorted(replaced):
            start, end = spans[position]
            start += len(text[start:end]) - len(text[start:end].lstrip())
            if start < done or start == end:  # a character of several tokens
                continue
            old, new = text[start:end], self.surface[replaced[position]]
            if old != old.lower() == self.surface[ids[position]]:  # an uncased tokenizer
                new = new.capitalize() if old[0].isupper() else new
            follows = position + 1 < len(ids) and bool(self.starts[ids[position + 1]])
            before, after = text[start - 1 : start], text[end : end + 1]
            if self.starts[replaced[position]] and (before + new[0]).isalnum() and before:
                new = " " + new
            if follows and after and (new[-1] + after).isalnum():
                new += " "
            pieces += [text[done:start], new]
            done = end
        return "".join(pieces) + text[done:]


def words_of(text: str) -> list[str]:
    """Its words and signs: ``"it's so-so."`` is ``it's``, ``so``, ``-``, ``so``, ``.``."""
    return _WORDS.findall(text)


def spans_of(text: str) -> list[tuple[int, int]]:
    """Where each of its words and signs begins and ends."""
    return [match.span() for match in _WORDS.finditer(text)]


def edits(original: str, rewritten: str) -> int:
    """The fewest words and signs to insert, delete or replace (Levenshtein, 1966)."""
    return len(_steps(words_of(original), words_of(rewritten)))


def changed_words(original: str, rewritten: str) -> list[tuple[str, bool]]:
    """The words and signs of ``rewritten``, and whether each is new there."""
    words = words_of(rewritten)
    new = {j for j in _steps(words_of(original), words) if j is not None}
    return [(word, j in new) for j, word in enumerate(words)]


def _steps(before: list[str], after: list[str]) -> list[int | None]:
    """A shortest way from one list to the other: of each step the place in ``after``, None for a deletion."""
    cost = [[i + j for j in range(len(after) + 1)] for i in range(len(before) + 1)]
    for i, old in enumerate(before, 1):
        for j, new in enumerate(after, 1):
            cost[i][j] = min(cost[i - 1][j - 1] + (old != new), cost[i - 1][j] + 1, cost[i][j - 1] + 1)
    steps: list[int | None] = []
    i, j = len(before), len(after)
    while i or j:
        if i and j and cost[i][j] == cost[i - 1][j - 1] + (before[i - 1] != after[j - 1]):
            i, j = i - 1, j - 1
            if before[i] != after[j]:
                steps.append(j)
        elif j and cost[i][j] == cost[i][j - 1] + 1:
            j -= 1
            steps.append(j)
        else:
            i -= 1
            steps.append(None)
    return steps


def check_fast(tokenizer: "PreTrainedTokenizerBase") -> None:
    """Refuse a tokenizer that cannot say where in a text a token stands.

    Raises:
        UserError: it is not a fast one.
    """
    if not tokenizer.is_fast:
        raise UserError("the model's tokenizer cannot say where in a text a token stands", hint="use a fast tokenizer")

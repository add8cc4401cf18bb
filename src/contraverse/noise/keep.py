"""Words and phrases of the user's own that noise and attacks leave as they are."""

from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path

import regex

from contraverse.errors import UserError

_DENSE = r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\p{Tibetan}]"
_MARK = r"[\p{M}\p{Grapheme_Cluster_Break=Extend}\u200d]"


class Keep:
    """Phrases that stay: whole words in any case, with any white space between them.

    In scripts that are written without spaces a phrase is found anywhere.

    Args:
        phrases: each holds a character that is no white space.

    Raises:
        UserError: a phrase is empty.
    """

    def __init__(self, phrases: Sequence[str]) -> None:
        self.phrases = tuple(dict.fromkeys(phrases))
        if not all(phrase.strip() for phrase in self.phrases):
            raise UserError("a phrase to keep is empty")
        # The longest first: of two that begin alike the longer is found.
        ordered = sorted(self.phrases, key=len, reverse=True)
        self._pattern = regex.compile("|".join(map(_pattern, ordered))) if ordered else None

    def spans(self, text: str) -> list[tuple[int, int]]:
        """List the places of the phrases in ``text``, in order."""
        return [] if self._pattern is None else [match.span() for match in self._pattern.finditer(text)]

    def written(self, text: str) -> list[str]:
        """List the phrases of ``text`` as they are written there, in order: what a change may not change."""
        return [text[start:end] for start, end in self.spans(text)]


@cache
def keeping(phrases: tuple[str, ...]) -> Keep:
    """Make a `Keep`, once for the same phrases."""
    return Keep(phrases)


def _pattern(phrase: str) -> str:
    words = r"\s+".join(regex.escape(word, special_only=False) for word in phrase.split())
    start = r"(?<!\w)" if regex.match(rf"(?!{_DENSE})\w", phrase.lstrip()) else ""
    end = r"(?!\w)" if regex.search(rf"(?!{_DENSE})\w{_MARK}*$", phrase.rstrip()) else ""
    return rf"{start}(?i:{words}){end}(?!{_MARK})"


def parse_phrases(written: str | Iterable[str]) -> list[str]:
    """Read phrases from ``"refund,not working"``, from a .txt file with one a line, or from a list.

    Raises:
        UserError: the file cannot be read as UTF-8, or there is no phrase.
    """
    if isinstance(written, str) and written.endswith(".txt"):
        try:
            lines = Path(written).read_text(encoding="utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise UserError("cannot be read as lines of UTF-8 text", where=written) from error
        phrases = lines
    else:
        phrases = written.split(",") if isinstance(written, str) else list(written)
    phrases = [phrase.strip() for phrase in phrases if phrase.strip()]
    if not phrases:
        raise UserError("names no word to keep", where=str(written) or None, hint="write words, as refund,not working")
    return list(dict.fromkeys(phrases))

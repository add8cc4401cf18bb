"""Other characters of the same look, and characters that are not seen."""

import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from functools import cache

import regex

from contraverse.noise.draws import Draws
from contraverse.noise.edits import Edit
from contraverse.noise.text import Text

LEET = {"a": "4@", "b": "8", "e": "3", "g": "9", "i": "1!", "l": "1", "o": "0", "s": "5$", "t": "7", "z": "2"}
MARKS_ABOVE_AND_BELOW = "\u0300\u0301\u0302\u0303\u0304\u0306\u0307\u0308\u030a\u030b\u030c\u0323\u0327\u0331"
INVISIBLE = ("\u200b", "\u2060", "\ufeff")
"""Zero-width space, word joiner, zero-width no-break space: they change no letter's form in any script."""
JOINERS = ("\u200c", "\u200d")
"""Zero-width non-joiner and joiner, which are orthography in Persian and in India, and invisible in Latin."""
LRE, RLO, PDF, LRI, RLI, PDI, LRM = "\u202a", "\u202e", "\u202c", "\u2066", "\u2067", "\u2069", "\u200e"

_RIGHT_TO_LEFT = regex.compile(r"[\p{Bidi_Class=R}\p{Bidi_Class=AL}]")
_UNJOINED = regex.compile(r"[\p{Latin}\p{Greek}\p{Cyrillic}\p{Armenian}\p{Georgian}]")


@cache
def homoglyphs() -> Mapping[str, tuple[str, ...]]:
    """Letters of other scripts, or of the Latin one beyond ASCII, that look like each of A to Z, a to z.

    The single cased letters of Unicode's confusables, as the package confusable-homoglyphs has them, that compatibility
    normalisation (NFKC) keeps and that fonts have (U+FFFF at most). Letters without any (k, m, t, I) are left out.
    """
    from confusable_homoglyphs.confusables import confusables_data

    table = {}
    for letter in map(chr, [*range(65, 91), *range(97, 123)]):
        characters = [entry["c"] for entry in confusables_data.get(letter, ())]
        alike = sorted(c for c in characters if len(c) == 1 and not c.isascii() and _cased_letter(c))
        if alike:
            table[letter] = tuple(alike)
    return table


def _cased_letter(character: str) -> bool:
    kept = unicodedata.normalize("NFKC", character) == character
    return unicodedata.category(character) in ("Ll", "Lu") and kept and character <= "\uffff"


def leet(text: Text, share: float, draws: Draws, pool: Sequence[str]) -> Iterator[Edit]:
    """A letter becomes a digit or a sign of its shape: 3 for e, 0 for o, @ for a."""
    for i in draws.share_of([i for i in text.latin if text.text[i].lower() in LEET], share):
        yield Edit(i, i + 1, draws.choice(LEET[text.text[i].lower()]))


def diacritics(text: Text, share: float, draws: Draws, pool: Sequence[str]) -> Iterator[Edit]:
    """A letter is given an accent, as é or ḷ; composed to one character where Unicode has it."""
    for i in draws.share_of(text.latin, share):
        mark = draws.choice(MARKS_ABOVE_AND_BELOW)
        yield Edit(i, i + 1, unicodedata.normalize("NFC", text.text[i] + mark))


def full_width(text: Text, share: float, draws: Draws, pool: Sequence[str]) -> Iterator[Edit]:
    """A word is written in full-width letters, as ｗｏｒｄ."""
    wide = str.maketrans({code: code + 0xFEE0 for code in range(0x21, 0x7F)})
    for word in draws.share_of([word for word in text.words if text[word].isascii()], share):
        yield Edit(*word, text[word].translate(wide))


def homoglyph(text: Text, share: float, draws: Draws, pool: Sequence[str]) -> Iterator[Edit]:
    """A letter becomes one of another script that looks like it."""
    table = homoglyphs()
    for i in draws.share_of([i for i in text.latin if text.text[i] in table], share):
        yield Edit(i, i + 1, draws.choice(table[text.text[i]]))


def zero_width(text: Text, share: float, draws: Draws, pool: Sequence[str]) -> Iterator[Edit]:
    """A character that is not seen is set between two letters of a word."""
    places = [letter[0] for word in text.words for letter in text.clusters(word)[1:]]
    anywhere = INVISIBLE + JOINERS
    for i in draws.share_of(places, share):
        unjoined = text.ascii or (_UNJOINED.match(text.text, i) and _UNJOINED.match(text.text, i - 1))
        yield Edit(i, i, draws.choice(anywhere if unjoined else INVISIBLE))


def bidi(text: Text, share: float, draws: Draws, pool: Sequence[str]) -> Iterator[Edit]:
    """Controls of the direction of writing are set around a word, which is shown as before.

    Isolates in the word's own direction; of words in Latin, Greek or Cyrillic letters also a left-to-right mark, or
    its letters backwards within a right-to-left override, as Boucher et al. (2022), Bad Characters, reorder them.
    """
    for word in draws.share_of(text.words, share):
        written = text[word]
        if _RIGHT_TO_LEFT.search(written):
            yield Edit(*word, RLI + written + PDI)
            continue
        clusters = [text[cluster] for cluster in text.clusters(word)]
        forms = [LRI + written + PDI, LRE + written + PDF]
        if all(map(_UNJOINED.match, clusters)):
            forms += [LRM + written, RLO + "".join(reversed(clusters)) + PDF]
        yield Edit(*word, draws.choice(forms))

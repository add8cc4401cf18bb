"""Edits of characters: inserted, deleted, substituted, or swapped with the next."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

from contraverse.errors import UserError
from contraverse.evasion.changes import Change, Span, chunks, cluster_at, clusters, keeps_clusters
from contraverse.evasion.search import FreeAttack, Node
from contraverse.noise.text import Text
from contraverse.noise.typos import NEIGHBOURS

LETTERS = "abcdefghijklmnopqrstuvwxyz"
LONGEST_PLACE = 12
"""Code points: a chunk of a script without spaces is cut into places of so many."""
OWN_LETTERS = 26
"""Letters of a row's own, outside of ASCII, that are put in besides the Latin ones."""


@dataclass(frozen=True)
class EditRules:
    """Limits on the edits of a text.

    Attributes:
        words: in words alone, and none that makes two words of one; anywhere if not.
        shortest: letters of the shortest word that is edited.
        keep_ends: the first and last letter of a word stay.
        content: no stop words (scikit-learn's English list), whatever their case.
        once: a word is edited once.
        keyboard: a letter is substituted by its neighbours on a QWERTY keyboard alone.
        source: where the rules are from.
    """

    words: bool
    shortest: int = 1
    keep_ends: bool = False
    content: bool = False
    once: bool = False
    keyboard: bool = False
    source: str = ""


RULES = {
    "any": EditRules(words=False),
    "pruthi": EditRules(True, 4, True, True, True, True, "Pruthi et al. (2019), section 3"),
    "deepwordbug": EditRules(True, 2, False, True, True, False, "Gao et al. (2018), section III"),
}
"""Edit anywhere, or under the rules of a paper."""


class Edits(FreeAttack):
    """At most k edits of characters; a character is a grapheme cluster, which no edit breaks.

    Insertions and substitutions take a to z, and, of a text with letters outside of ASCII, up to 26 of its own; where
    the rules leave words, a space as well.

    Args:
        rules: a name of `RULES`.

    Raises:
        UserError: no such rules.
    """

    name, unit, ranked = "edits", "character edits", True

    def __init__(self, rules: str = "any") -> None:
        if rules not in RULES:
            raise UserError(f"no rules are called {rules!r}", hint=f"there are {', '.join(RULES)}")
        self.rules = RULES[rules]

    def places(self, node: Node, seen: int) -> list[Span]:
        """List words that may be edited, or under free rules the runs between white space with what follows them."""
        if not self.rules.words:
            return [span for span in _tiles(node.text) if span.start < seen]
        locked = set(node.locked) if self.rules.once else set()
        text = Text(node.text, protect=False)
        words = (Span(*word) for word in text.words)
        spans = [word for word in words if word.end <= seen and word not in locked]
        return [span for span in spans if self._is_eligible(text, span)]

    def _is_eligible(self, text: Text, span: Span) -> bool:
        stop = self.rules.content and text.text[span.start : span.end].lower() in ENGLISH_STOP_WORDS
        return not stop and len(clusters(text.text, span)) >= self.rules.shortest

    def changes(self, node: Node, place: Span) -> list[Change]:
        """List every edit at a place that leaves the clusters whole."""
        text, rules = node.text, self.rules
        units = clusters(text, place)
        inner = units[1:-1] if rules.keep_ends else units
        alphabet = _alphabet(text) + ("" if rules.words else " ")
        options = dict.fromkeys(self._raw(text, units, inner, alphabet, place))
        if text.isascii() and "\r" not in text:
            return list(options)
        around = _around(text, place)
        return [change for change in options if keeps_clusters(text, change, around)]

    def _raw(
        self, text: str, units: Sequence[Span], inner: Sequence[Span], alphabet: str, place: Span
    ) -> Iterator[Change]:
        for unit in inner:
            old = text[unit.start : unit.end]
            if len(text) > unit.end - unit.start and (not self.rules.words or len(units) > 1):
                yield Change(*unit, "")
            letters = NEIGHBOURS.get(old, "") if self.rules.keyboard else alphabet
            yield from (Change(*unit, letter) for letter in letters if letter != old)
        for first, second in self._pairs(text, units, inner):
            a, b = text[first.start : first.end], text[second.start : second.end]
            if a != b:
                yield Change(first.start, second.end, b + a)
        for at in self._gaps(text, units, inner, place):
            for letter in alphabet:
                yield Change(at, at, letter)

    def _pairs(self, text: str, units: Sequence[Span], inner: Sequence[Span]) -> list[tuple[Span, Span]]:
        """Neighbouring clusters; of a place anywhere its last one and the first of the next place, too."""
        chosen = list(inner)
        if not self.rules.words and units and units[-1].end < len(text):
            after = cluster_at(text, units[-1].end)
            chosen += [after] if after else []
        return list(pairwise(chosen))

    def _gaps(self, text: str, units: Sequence[Span], inner: Sequence[Span], place: Span) -> list[int]:
        """Where a character may be put in: before each cluster, and at the end of a word or of the text."""
        if self.rules.keep_ends:
            return [unit.start for unit in units[1:]]
        gaps = [unit.start for unit in inner]
        return [*gaps, place.end] if self.rules.words or place.end == len(text) else gaps

    def locks(self, node: Node, change: Change) -> tuple[Span, ...]:
        """List the word that was edited, as it is now, where the rules want it edited once."""
        if not self.rules.once:
            return ()
        end = change.start + len(change.new)
        words = (Span(*word) for word in Text(change.apply(node.text), protect=False).words)
        return tuple(word for word in words if word.start <= end and word.end >= change.start)


def _tiles(text: str) -> Iterator[Span]:
    """Cut all of ``text`` into places: runs with the white space after them, long ones in pieces of whole clusters."""
    whole = range(len(text)) if text.isascii() else {unit.start for unit in clusters(text)}
    starts = [0, *(chunk.start for chunk in chunks(text) if chunk.start and chunk.start in whole), len(text)]
    for start, end in pairwise(starts):
        first = start
        while end - first > LONGEST_PLACE * 2:
            units = clusters(text, Span(first, end))
            last = next(unit.end for unit in units if unit.end - first >= LONGEST_PLACE)
            yield Span(first, last)
            first = last
        if end > first:
            yield Span(first, end)


def _around(text: str, place: Span) -> Span:
    """``place`` with a cluster on either side, and one more after it, which its last one may be swapped with."""
    before = clusters(text, Span(0, place.start))[-1:] if place.start else []
    end = place.end
    for _ in range(2):
        after = cluster_at(text, end)
        end = after.end if after else end
    return Span(before[0].start if before else place.start, end)


def _alphabet(text: str) -> str:
    if text.isascii():
        return LETTERS
    own = dict.fromkeys(c for c in text if not c.isascii() and c.isalpha())
    return LETTERS + "".join(list(own)[:OWN_LETTERS])

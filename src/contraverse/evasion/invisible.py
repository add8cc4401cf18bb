"""Look-alikes of letters and characters that are not seen: a text that reads as before."""

from itertools import pairwise

from contraverse.evasion.changes import Change, Span, clusters
from contraverse.evasion.search import FreeAttack, Node
from contraverse.noise.characters import INVISIBLE, homoglyphs
from contraverse.noise.text import Text

SOFT_HYPHEN = "\u00ad"
HIDDEN = (*INVISIBLE, SOFT_HYPHEN)
"""Characters that are put between two letters. Joiners are not among them: they change letters in other scripts."""
LOOK_ALIKES = 4
"""Look-alikes of one letter that are tried."""


class Unicode(FreeAttack):
    """At most k characters: letters replaced by look-alikes, or invisible ones put between two letters of a word.

    Look-alikes are of Latin letters without marks (Unicode's confusables); invisible characters go into words of any
    script. Neither breaks a grapheme cluster. A letter is replaced once.
    """

    name, unit, ranked = "unicode", "characters", True

    def places(self, node: Node, seen: int) -> list[Span]:
        """List the words."""
        words = (Span(*word) for word in Text(node.text, protect=False).words)
        return [word for word in words if word.end <= seen]

    def changes(self, node: Node, place: Span) -> list[Change]:
        """List each look-alike of each letter, and each invisible character between two letters."""
        text, table = node.text, homoglyphs()
        units = clusters(text, place)
        changes = [
            Change(*unit, other) for unit in units for other in table.get(text[unit.start : unit.end], ())[:LOOK_ALIKES]
        ]
        gaps = [unit.start for before, unit in pairwise(units) if _is_seen(text, before, unit)]
        return changes + [Change(gap, gap, hidden) for gap in gaps for hidden in HIDDEN]

    def locks(self, node: Node, change: Change) -> tuple[Span, ...]:
        """List nothing: a look-alike has none itself."""
        return ()


def _is_seen(text: str, *units: Span) -> bool:
    """Tell if neither of two neighbours is an invisible character already."""
    return not any(text[start:end] in HIDDEN for start, end in units)

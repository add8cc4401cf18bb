"""An attack that leaves the user's own words and phrases as they are."""

from collections.abc import Sequence

from contraverse.evasion.changes import Change, Span
from contraverse.evasion.search import Node, TextAttack
from contraverse.noise.keep import keeping


class Keeping:
    """``attack`` without the changes that alter, remove, split or add one of ``phrases``.

    Each text has the phrases of the original, in the same writing, number and order.

    Args:
        attack: the attack to limit.
        phrases: words and phrases that stay, in any case.

    Raises:
        UserError: a phrase is empty.
    """

    def __init__(self, attack: TextAttack, phrases: Sequence[str]) -> None:
        self.attack, self.keep = attack, keeping(tuple(phrases))
        self.name, self.unit, self.ranked = attack.name, attack.unit, attack.ranked

    def places(self, node: Node, seen: int) -> list[Span]:
        """List the attack's places."""
        return self.attack.places(node, seen)

    def changes(self, node: Node, place: Span) -> list[Change]:
        """List the attack's changes after which every phrase is there as before."""
        written = self.keep.written(node.text)
        options = self.attack.changes(node, place)
        return [change for change in options if self.keep.written(change.apply(node.text)) == written]

    def locks(self, node: Node, change: Change) -> tuple[Span, ...]:
        """List the attack's locked spans."""
        return self.attack.locks(node, change)

    def admits(self, row: int, texts: Sequence[str]) -> list[bool]:
        """Tell which texts the attack admits."""
        return self.attack.admits(row, texts)

"""Names ordered by how near they are to one that does not exist, for error messages."""

from collections.abc import Iterable
from difflib import SequenceMatcher


def nearest(name: str, known: Iterable[str]) -> list[str]:
    """Every name of ``known``, the one most like ``name`` first; case does not matter."""

    def likeness(other: str) -> float:
        return SequenceMatcher(None, name.casefold(), other.casefold()).ratio()

    return sorted(known, key=lambda other: (-likeness(other), other))

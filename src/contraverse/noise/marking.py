"""Edits as a reader sees them."""

from collections.abc import Iterable

from contraverse.noise.edits import Edit
from contraverse.visible import visible


def mark_edits(text: str, edits: Iterable[Edit]) -> str:
    """Mark each edit of ``text`` as ⟦old→new⟧, an insertion as ⟦+new⟧, a deletion as ⟦-old⟧.

    Hidden characters are written as escapes (`contraverse.visible`).
    """
    parts, done = list[str](), 0
    for start, end, new in edits:
        old, new = visible(text[start:end]), visible(new)
        parts += visible(text[done:start]), f"⟦{old}→{new}⟧" if old and new else f"⟦+{new}⟧" if new else f"⟦-{old}⟧"
        done = end
    return "".join([*parts, visible(text[done:])])

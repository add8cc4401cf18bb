"""Edits as a reader sees them."""

from collections.abc import Iterable

import regex

from contraverse.noise.edits import Edit

_UNSEEN = regex.compile(r"[\p{Default_Ignorable_Code_Point}\p{Cc}\p{Cs}]")
_JOINED_EMOJI = regex.compile(
    r"\p{Extended_Pictographic}[\ufe0f\u200d\p{Emoji_Modifier}\p{Extended_Pictographic}]*+|[\d#*]\ufe0f\u20e3"
)


def visible(text: str) -> str:
    """``text`` with unseen characters as their numbers, ‹200B›; emoji that are made of several stay whole."""
    parts, done = list[str](), 0
    for match in _JOINED_EMOJI.finditer(text):
        parts += _numbered(text[done : match.start()]), match[0]
        done = match.end()
    return "".join([*parts, _numbered(text[done:])])


def _numbered(text: str) -> str:
    return _UNSEEN.sub(lambda match: f"‹{ord(match[0]):04X}›", text)


def mark_edits(text: str, edits: Iterable[Edit]) -> str:
    """``text`` with each edit as ⟦old→new⟧, an insertion as ⟦+new⟧, a deletion as ⟦-old⟧, all of it `visible`."""
    parts, done = list[str](), 0
    for start, end, new in edits:
        old, new = visible(text[start:end]), visible(new)
        parts += visible(text[done:start]), f"⟦{old}→{new}⟧" if old and new else f"⟦+{new}⟧" if new else f"⟦-{old}⟧"
        done = end
    return "".join([*parts, visible(text[done:])])

"""Edits of a text, and their application."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from contraverse.noise.draws import Draws
from contraverse.noise.text import Text


class Edit(NamedTuple):
    """Replacement of the code points [start, end) of a text by ``new``; an insertion where ``start == end``."""

    start: int
    end: int
    new: str


Editor = Callable[[Text, float, Draws, Sequence[str]], Iterator[Edit]]
"""A kind of noise: ``(text, share, draws, pool)`` to edits that do not overlap, in any order.

``share``: of the eligible places. ``pool``: words to add, which other kinds than those of words ignore. It calls
`Draws.share_of` once, before its first edit, or sets `Draws.eligible`.
"""


def apply_edits(text: str, edits: Iterable[Edit]) -> str:
    """``text`` with ``edits``, which are in the order of their places."""
    parts, done = list[str](), 0
    for start, end, new in edits:
        parts += text[done:start], new
        done = end
    parts.append(text[done:])
    return "".join(parts)

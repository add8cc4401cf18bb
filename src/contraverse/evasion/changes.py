"""One change of a text, and the grapheme clusters that it may not break."""

import re
from collections.abc import Iterator
from typing import NamedTuple

import regex

_CLUSTER = regex.compile(r"\X")
_CHUNK = re.compile(r"\S+")
REACH = 24
"""A chunk around a change ends here, in code points, where no white space ends it sooner: scripts without spaces."""


class Span(NamedTuple):
    """Part of a text, in code points."""

    start: int
    end: int


class Change(NamedTuple):
    """``text[start:end]`` becomes ``new``; an insertion where ``start == end``, a deletion where ``new`` is empty."""

    start: int
    end: int
    new: str

    def apply(self, text: str) -> str:
        """Give the changed text."""
        return text[: self.start] + self.new + text[self.end :]

    @classmethod
    def between(cls, old: str, new: str) -> "Change":
        """Give the shortest single change that makes ``new`` of ``old``."""
        start = 0
        limit = min(len(old), len(new))
        while start < limit and old[start] == new[start]:
            start += 1
        tail = 0
        while tail < limit - start and old[len(old) - 1 - tail] == new[len(new) - 1 - tail]:
            tail += 1
        return cls(start, len(old) - tail, new[start : len(new) - tail])


def clusters(text: str, span: Span | None = None) -> list[Span]:
    """List the grapheme clusters of ``text``, or of ``span`` of it, which begins at one.

    A cluster is one character for a reader: a letter with its accents, a flag, a family of emoji (UAX #29).
    """
    start, end = span or (0, len(text))
    if text.isascii() and "\r" not in text:
        return [Span(i, i + 1) for i in range(start, end)]
    return [Span(*match.span()) for match in _CLUSTER.finditer(text, start, end)]


def cluster_at(text: str, start: int) -> Span | None:
    """Give the cluster that begins at ``start``, which is a boundary; None at the end of the text."""
    match = _CLUSTER.match(text, start)
    return Span(*match.span()) if match else None


def keeps_clusters(text: str, change: Change, around: Span) -> bool:
    """Tell if ``change`` leaves every cluster of ``text`` whole, but for those that it replaces.

    Clusters join where a change brings a mark, a joiner or half a flag beside another character. ``around``: from the
    start of the cluster before the change to the end of the one after it, or the ends of the text.
    """
    if text.isascii() and change.new.isascii() and "\r" not in text:
        return True
    before, old, after = (
        _CLUSTER.findall(text[start:end])
        for start, end in ((around.start, change.start), (change.start, change.end), (change.end, around.end))
    )
    new = _CLUSTER.findall(change.new)
    if change.new and len(new) != max(1, len(old)):  # two that were swapped became one
        return False
    together = _CLUSTER.findall(text[around.start : change.start] + change.new + text[change.end : around.end])
    return bool(together == [*before, *new, *after])


def chunk_around(text: str, change: Change) -> Span:
    """Give the run of text without white space that holds ``change``: what a tokenizer looks at together."""
    start, end = change.start, change.end
    while start > 0 and change.start - start < REACH and not text[start - 1].isspace():
        start -= 1
    while end < len(text) and end - change.end < REACH and not text[end].isspace():
        end += 1
    return Span(start, end)


def chunks(text: str) -> Iterator[Span]:
    """Give the runs of text without white space."""
    for match in _CHUNK.finditer(text):
        yield Span(*match.span())


def shifted(spans: tuple[Span, ...], change: Change) -> tuple[Span, ...]:
    """Give the places of ``spans`` after ``change``; one that it touches covers what it became."""
    moved = len(change.new) - (change.end - change.start)
    result = []
    for start, end in spans:
        if end <= change.start:
            result.append(Span(start, end))
        elif start >= change.end:
            result.append(Span(start + moved, end + moved))
        else:
            result.append(Span(min(start, change.start), max(end, change.end) + moved))
    return tuple(result)


def moved(end: int, change: Change) -> int:
    """Give the end of a part of a text, its first ``end`` code points, after ``change``.

    A change that begins at the end is not of the part, and one across it ends the part with what it became.
    """
    if change.start >= end:
        return end
    return max(end, change.end) + len(change.new) - (change.end - change.start)

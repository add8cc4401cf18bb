"""A table as a source gives it: columns of raw values, before anything is known about texts and labels."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

Unit = Literal["line", "row"]


class BadRow(NamedTuple):
    """A row that cannot be used, and why. ``row`` counts from 1: lines of a text file, else rows."""

    where: str
    unit: Unit
    row: int
    problem: str


@dataclass(frozen=True)
class Table:
    """Rows of one file, or of one split of a Hub data set.

    ``where`` names it in messages; ``names`` are its columns; ``column(name)`` gives one column's values, one for
    each of ``rows`` (1-based numbers, lines where ``unit`` is "line"). ``classes``: the class names that the source
    itself declares for a column of integers. ``faults``: rows that could not be read and are not in ``rows``.
    """

    where: str
    names: tuple[str, ...]
    column: Callable[[str], Sequence[Any]]
    rows: Sequence[int]
    unit: Unit = "row"
    classes: Mapping[str, Sequence[str]] = field(default_factory=dict)
    faults: Sequence[BadRow] = ()
    blank: int = 0
    """Number of blank lines, which are no rows."""
    notes: Sequence[str] = ()
    """Decisions taken while it was read."""
    hint: str | None = None
    """Remedy for rows that are not UTF-8."""
    plain: bool = False
    """Lines of text, which have no columns that could be mistaken."""

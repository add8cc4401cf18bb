"""Tables as a source gives them: columns of raw values, before anything is known about texts and labels.

Parquet files become the Arrow table in them, its columns Python values. Many strings share one buffer: a list of them
takes about 60 bytes more for each.
"""

import json
from abc import abstractmethod
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar, overload

from contraverse.errors import UserError

T = TypeVar("T", covariant=True)
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


def check_names(names: Sequence[str], where: str, hint: str | None = None) -> None:
    """Raise a `UserError` where two columns have one name, or one has a name that is not UTF-8, with this ``hint``."""
    twice = sorted(name for name, count in Counter(names).items() if name and count > 1)
    if twice:
        raise UserError(
            f"the header names {', '.join(map(repr, twice))} more than once",
            where=where,
            hint="Rename one of these columns.",
        )
    if any("\ud800" <= letter <= "\udfff" for name in names for letter in name):
        raise UserError("the header is not valid UTF-8", where=where, hint=hint or "Write it in UTF-8.")


def open_parquet(data: bytes, path: Path) -> Any:
    """The Arrow table in the bytes of a Parquet file; ``path`` names it in messages.

    Raises:
        UserError: it is damaged, or no Parquet at all.
    """
    import pyarrow as pa
    from pyarrow import parquet

    try:
        return parquet.ParquetFile(pa.BufferReader(data)).read()
    except (pa.ArrowException, OSError) as error:
        raise UserError(
            f"cannot be read as Parquet: {str(error).splitlines()[0]}",
            where=str(path),
            hint="The file is damaged, cut short, or not Parquet at all.",
        ) from error


def column_values(column: Any) -> Sequence[Any]:
    """The column as Python values; bytes are decoded as text is."""
    import pyarrow as pa

    try:
        values: list[Any] = column.to_pylist()
    except UnicodeDecodeError:
        values = column.cast(pa.large_binary()).to_pylist()
    return [value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else value for value in values]


def declared_classes(metadata: dict[bytes, bytes]) -> dict[str, list[str]]:
    """Class names that `datasets` wrote into a Parquet file: its integers mean nothing without them."""
    try:
        features = json.loads(metadata[b"huggingface"])["info"]["features"]
        return {name: kind["names"] for name, kind in features.items() if kind.get("_type") == "ClassLabel"}
    except (KeyError, ValueError, TypeError, AttributeError):
        return {}


class Indexed(Sequence[T]):
    """Sequence that makes each item when it is asked for; its slices are lists."""

    @abstractmethod
    def item(self, index: int) -> T:
        """Item number ``index``, from 0 to the length less one."""

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> list[T]: ...

    def __getitem__(self, index: int | slice) -> T | list[T]:
        if isinstance(index, slice):
            return [self.item(i) for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        return self.item(index % len(self))


class Strings(Indexed[str]):
    """Strings that can be appended and read, held as UTF-8; lone surrogates stay as they are."""

    def __init__(self, values: Iterable[str] = ()) -> None:
        self._bytes, self._ends = bytearray(), array("q")
        for value in values:
            self.append(value)

    def append(self, value: str) -> None:
        """Add a string at the end."""
        self._bytes += value.encode("utf-8", "surrogatepass")
        self._ends.append(len(self._bytes))

    def __len__(self) -> int:
        return len(self._ends)

    def item(self, index: int) -> str:
        start = self._ends[index - 1] if index else 0
        return self._bytes[start : self._ends[index]].decode("utf-8", "surrogatepass")

    def __iter__(self) -> Iterator[str]:
        start = 0
        for end in self._ends:
            yield self._bytes[start:end].decode("utf-8", "surrogatepass")
            start = end


class Texts(Indexed[tuple[str, ...]]):
    """Rows of one or more texts each, equal to a list of such tuples; not to be changed.

    Args:
        rows: the rows.
        width: texts of a row.
    """

    def __init__(self, rows: Iterable[Sequence[str]], width: int) -> None:
        self._columns = [Strings() for _ in range(width)]
        for row in rows:
            for column, text in zip(self._columns, row, strict=True):
                column.append(text)

    @classmethod
    def of(cls, columns: Sequence[Strings]) -> "Texts":
        """Rows of columns of one length, which are not copied."""
        rows = cls((), len(columns))
        rows._columns = list(columns)
        return rows

    def __len__(self) -> int:
        return len(self._columns[0])

    def item(self, index: int) -> tuple[str, ...]:
        return tuple(column.item(index) for column in self._columns)

    def __iter__(self) -> Iterator[tuple[str, ...]]:
        return zip(*self._columns, strict=True)

    def __add__(self, other: Sequence[tuple[str, ...]]) -> list[tuple[str, ...]]:
        return [*self, *other]

    def __eq__(self, other: Any) -> bool:
        if not isinstance(other, Sequence):
            return NotImplemented
        return len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]  # as of a list

    def __repr__(self) -> str:
        shown = ", ".join(map(repr, self[:3]))
        return f"[{shown}{', ...' if len(self) > 3 else ''}]"

"""Many strings in one buffer: a list of them takes about 60 bytes more for each."""

from array import array
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, overload


class Strings(Sequence[str]):
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

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...

    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        index %= len(self)
        start = self._ends[index - 1] if index else 0
        return self._bytes[start : self._ends[index]].decode("utf-8", "surrogatepass")

    def __iter__(self) -> Iterator[str]:
        start = 0
        for end in self._ends:
            yield self._bytes[start:end].decode("utf-8", "surrogatepass")
            start = end


class Texts(Sequence[tuple[str, ...]]):
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

    @overload
    def __getitem__(self, index: int) -> tuple[str, ...]: ...
    @overload
    def __getitem__(self, index: slice) -> list[tuple[str, ...]]: ...

    def __getitem__(self, index: int | slice) -> tuple[str, ...] | list[tuple[str, ...]]:
        if isinstance(index, slice):
            return list(zip(*(column[index] for column in self._columns), strict=True))
        return tuple(column[index] for column in self._columns)

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

"""Tables that Python holds already: pandas data frames and data sets of `datasets`."""

from collections.abc import Sequence
from typing import Any

from contraverse.data.hub import table_of
from contraverse.data.tables import Table, check_names
from contraverse.data.values import is_missing


def is_table(source: Any) -> bool:
    """True for a pandas data frame and for one split of `datasets`."""
    frame = hasattr(source, "iloc") and hasattr(source, "columns")
    return frame or (hasattr(source, "column_names") and hasattr(source, "features") and not isinstance(source, dict))


def read_in_memory(source: Any, where: str) -> Table:
    """The rows of what `is_table` is true for; ``where`` names it in messages, and its rows count from 1.

    Raises:
        UserError: two columns have one name.
    """
    if not hasattr(source, "iloc"):
        return table_of(source, where)
    names = tuple(map(str, source.columns))
    check_names(names, where)

    def column(name: str) -> Sequence[Any]:
        values = source.iloc[:, names.index(name)].tolist()
        return [None if is_missing(value) else value for value in values]

    return Table(where=where, names=names, column=column, rows=range(1, len(source) + 1))

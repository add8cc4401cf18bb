"""Tables that Python holds already: pandas data frames, data sets of `datasets`, and lists of dicts."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from contraverse.data.columns import is_missing
from contraverse.data.files import check_names
from contraverse.data.tables import Table
from contraverse.errors import UserError

_PART_KEYS = ("task", "source", "split", "weight")
"""Keys of a part of a mixture (`contraverse.data.mixture`), which is written as a dict too."""


def is_table(source: Any) -> bool:
    """True for a pandas data frame, for one split of `datasets`, and for a list of rows.

    A list of rows is two dicts or more with a key in common, of which none has a key that is only a part's.
    """
    if isinstance(source, list):
        dicts = len(source) > 1 and all(isinstance(row, Mapping) for row in source)
        return dicts and bool(set.intersection(*map(set, source))) and not set(_PART_KEYS).intersection(*source[:1])
    frame = hasattr(source, "iloc") and hasattr(source, "columns")
    return frame or (hasattr(source, "column_names") and hasattr(source, "features") and not isinstance(source, dict))


def read_in_memory(source: Any, where: str) -> Table:
    """The rows of what `is_table` is true for; ``where`` names it in messages, and its rows count from 1.

    Raises:
        UserError: two columns have one name.
    """
    if isinstance(source, list):
        names = tuple(dict.fromkeys(str(name) for row in source for name in row))
        values = [{str(name): None if is_missing(value) else value for name, value in row.items()} for row in source]
        return Table(
            where=where,
            names=names,
            column=lambda name: [row.get(name) for row in values],
            rows=range(1, len(source) + 1),
        )
    if not hasattr(source, "iloc"):
        return table_of(source, where)
    names = tuple(map(str, source.columns))
    check_names(names, where)

    def column(name: str) -> Sequence[Any]:
        values = source.iloc[:, names.index(name)].tolist()
        return [None if is_missing(value) else value for value in values]

    return Table(where=where, names=names, column=column, rows=range(1, len(source) + 1))


def table_of(split: Any, where: str) -> Table:
    """One split of `datasets` as a table."""

    def column(name: str) -> Sequence[Any]:
        return split[name][:]

    classes = {name: feature.names for name, feature in split.features.items() if hasattr(feature, "names")}
    return Table(
        where=where, names=tuple(split.column_names), column=column, rows=range(1, len(split) + 1), classes=classes
    )


def python_words(message: str) -> str:
    """``message`` with arguments of a Python call in place of options of the command line."""
    message = message.replace("--on-bad-row skip", 'on_bad_row="skip"')
    message = re.sub(r"--encoding ([\w-]+\w)", r'encoding="\1"', message)
    message = re.sub(r"--size (\d+)", r"size=\1", message)
    return re.sub(r"--([a-z]+)\b", r"\1=", message)


def in_python(error: UserError) -> UserError:
    """``error`` in the words of a Python call."""
    return UserError(python_words(error.what), where=error.where, hint=error.hint and python_words(error.hint))

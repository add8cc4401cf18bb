"""Files of vectors and predictions, written part by part and whole or not at all."""

import csv
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from contraverse.cli.files import write_whole

if TYPE_CHECKING:
    import numpy as np

Columns = dict[str, list[Any]]
"""Values of some rows by the names of their columns."""


def write_vectors(output: Path, column: str, names: Sequence[str], parts: "Iterable[np.ndarray]", total: int) -> int:
    """Write vectors as .npy (total, H) float32, or as .parquet beside their ``names``; returns H."""
    import numpy as np

    iterator = iter(parts)
    first = next(iterator)

    def arrays() -> "Iterator[np.ndarray]":
        yield first
        yield from iterator

    def write_array(file: IO[bytes]) -> None:
        header = {"descr": first.dtype.str, "fortran_order": False, "shape": (total, *first.shape[1:])}
        np.lib.format.write_array_header_1_0(file, header)
        for array in arrays():
            file.write(np.ascontiguousarray(array).data)

    if output.suffix == ".npy":
        write_whole(output, write_array, binary=True)
    else:
        _write_parquet(output, _named(column, names, ({"embedding": list(array)} for array in arrays())))
    return int(first.shape[1])


def write_predictions(output: Path, column: str, names: Sequence[Any], parts: Iterable[Columns]) -> None:
    """Write columns of predictions beside the ``names`` of their rows as .csv, .jsonl or .parquet."""
    tables = _named(column, names, parts)
    if output.suffix == ".parquet":
        _write_parquet(output, tables)
    else:
        write_whole(output, lambda file: _write_lines(file, tables, output.suffix))


def _named(column: str, names: Sequence[Any], parts: Iterable[Columns]) -> Iterator[Columns]:
    first = 0
    for columns in parts:
        last = first + len(next(iter(columns.values())))
        yield {column: list(names[first:last]), **columns}
        first = last


def _write_lines(file: IO[str], tables: Iterable[Columns], suffix: str) -> None:
    writer = csv.writer(file)
    for number, columns in enumerate(tables):
        rows = zip(*columns.values(), strict=True)
        if suffix == ".csv":
            if number == 0:
                writer.writerow(columns)
            writer.writerows([_harmless(value) for value in row] for row in rows)
        else:
            lines = (json.dumps(dict(zip(columns, row, strict=True)), ensure_ascii=False) + "\n" for row in rows)
            file.writelines(lines)


def _harmless(value: Any) -> Any:
    """A cell that a spreadsheet takes for text: what begins like a formula, and is no number, after an apostrophe."""
    if not isinstance(value, str) or (not value.lstrip().startswith(("=", "+", "-", "@")) and value[:1] not in "\t\r"):
        return value
    try:
        float(value)
    except ValueError:
        return "'" + value
    return value


def _write_parquet(output: Path, tables: Iterable[Columns]) -> None:
    import pyarrow
    from pyarrow import parquet

    def write(file: IO[bytes]) -> None:
        writer = None
        for columns in tables:
            table = pyarrow.table(columns)
            writer = writer or parquet.ParquetWriter(file, table.schema)
            writer.write_table(table)
        if writer is not None:
            writer.close()

    write_whole(output, write, binary=True)

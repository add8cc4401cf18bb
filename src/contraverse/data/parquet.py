"""Parquet files: the table in the bytes of one, its columns as Python values, and the classes that it declares."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from contraverse.errors import UserError


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

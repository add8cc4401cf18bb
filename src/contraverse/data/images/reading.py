"""From the sources of images to arrays of one size with class ids, and what is wrong with them."""

import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch

from contraverse.data.images.dataset import ImageData, to_bytes
from contraverse.data.images.lazy import IN_MEMORY, LazyPixels
from contraverse.data.images.source import BadImage, ImageSource, decode, natural, resized_array, strict
from contraverse.data.images.tasks import ImageTask
from contraverse.data.splits import OnBadRow, SplitName, listed
from contraverse.errors import UserError
from contraverse.types import UNLABELLED

_MOST_CLASSES = 10_000
_NUMBER = re.compile("[0-9]+")


class BadLabel(Exception):
    """A label that is no class, and why."""


class UnknownLabel(BadLabel):
    """A label that could be a class, and is none of those that are known."""


def find_classes(parts: Sequence[ImageSource], task: ImageTask) -> tuple[str, ...] | None:
    """The task's classes, or those that the training parts declare, or the different labels in natural order.

    None where no image of the parts has a label.

    Raises:
        UserError: nearly every image that has a label has one of its own.
    """
    if all(map(is_hidden, parts)):
        return None
    declared = next((part.classes for part in parts if part.classes), None)
    if task.labels or declared:
        return task.labels or declared
    labels = [label for part in parts for label in part.labels or () if not is_missing(label)]
    names, total = {name for label in labels if (name := _name(label)) is not None}, len(labels)
    if len(names) > _MOST_CLASSES or (len(names) > 20 and 2 * len(names) > total):
        raise UserError(
            f"the labels have {len(names)} different values in {total} images: no classes",
            where=parts[0].where,
            hint="Name the column of the classes with --label.",
        )
    return tuple(sorted(names, key=natural))


def is_missing(label: Any) -> bool:
    """True of what says that there is no label: None, NaN, empty text, -1. It is never a class."""
    if isinstance(label, str):
        return label.strip() in ("", "-1")
    return label is None or bool(label != label) or (label == -1 and not isinstance(label, bool))


def is_hidden(part: ImageSource) -> bool:
    """True where no image of the part has a label."""
    return part.labels is None or all(map(is_missing, part.labels))


def to_ids(part: ImageSource, names: Sequence[str], task: ImageTask) -> Callable[[int], int]:
    """A function from an image's number to its class id, `UNLABELLED` where it has no label.

    A number is the class that the source declares for it, else the one of that id, unless numbers are the names. A
    name matches regardless of case where the task has classes of its own.

    Raises (the function):
        UnknownLabel: the label is none of the classes.
        BadLabel: it is nothing that can be one.
    """
    ids = {name: i for i, name in enumerate(names)}
    if task.labels:
        ids = {name.casefold(): i for i, name in enumerate(names)} | ids

    def of_name(name: str) -> int | None:
        return ids.get(name, ids.get(name.casefold()) if task.labels else None)

    declared = part.classes
    if declared and all(of_name(name) is None for name in declared):
        declared = None

    def look_up(i: int) -> int:
        label = part.labels[i] if part.labels is not None else None
        if is_missing(label):
            return UNLABELLED
        name = _name(label)
        if name is None:
            raise BadLabel(f"the label {label!r} is not a class")
        number = int(name) if _NUMBER.fullmatch(name) else None
        if number is not None and declared and not isinstance(label, str):
            class_id = of_name(declared[number]) if number < len(declared) else None
        else:
            class_id = of_name(name)
        if class_id is None and task.labels and not declared and number is not None and number < len(names):
            class_id = number
        if class_id is None:
            raise UnknownLabel(f"the label {label!r} is unknown (known: {listed(names)})")
        return class_id

    return look_up


def _name(label: Any) -> str | None:
    """The label as a class name, ``1`` and ``1.0`` being one; None for what is no class."""
    if isinstance(label, str):
        return label.strip()
    if isinstance(label, bool) or not isinstance(label, int | float):
        return None
    return str(int(label)) if math.isfinite(label) and label == int(label) else None


@dataclass
class ImageReader:
    """Decodes parts into arrays of one size, and keeps what is wrong with them and what was converted."""

    task: ImageTask
    names: tuple[str, ...] | None
    size: int | None
    in_memory: bool | Literal["auto"] = "auto"
    lazy: bool = True
    """True where images may be decoded later: not where bad ones are to be skipped."""
    faults: list[str] = field(default_factory=list)
    sizes: dict[tuple[int, ...], tuple[int, str]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    _seen: Counter[str] = field(default_factory=Counter)
    _labelled: int = 0
    _unknown: int = 0

    @property
    def other_task(self) -> str | None:
        """The way out where no label at all is one of the task's classes."""
        if not self.task.labels or not self._labelled or self._unknown < self._labelled:
            return None
        return f"No label is a class of {self.task.name}: images with classes of their own are --task images."

    def read(self, parts: Sequence[ImageSource], split: SplitName) -> ImageData | None:
        """The images of one split; None where it is to be measured on and has no labels, which is noted."""
        where = ", ".join(part.where for part in parts)
        labelled = self.names is not None
        if split != "train" and (not labelled or all(map(is_hidden, parts))):
            self.notes.append(f"{where}: has no labels, so it is not used as a {split} split")
            return None
        blocks, labels = list[np.ndarray](), list[int]()
        chosen = [self._classes(part, split) if labelled else (range(len(part.images)), []) for part in parts]
        for part in parts:
            self.faults += part.faults
        if (left := self._left(parts, [rows for rows, _ in chosen], where)) is not None:
            ids = [class_id for _, class_ids in chosen for class_id in class_ids]
            return ImageData(left, torch.tensor(ids, dtype=torch.long) if labelled else None, self.names, where)
        with strict():
            for part, (rows, ids) in zip(parts, chosen, strict=True):
                pixels, good = self._pixels(part, rows)
                blocks += [pixels] if len(pixels) else []
                labels += [ids[i] for i in good] if labelled else []
        self._note_conversions(where)
        if len({block.shape[1:] for block in blocks}) != 1:
            # None, or of different sizes: `check` and the caller refuse them.
            blocks = [np.empty((0, 3, 0, 0), np.uint8)]
        whole = blocks[0] if len(blocks) == 1 else np.concatenate(blocks)
        ids_of = torch.tensor(labels[: len(whole)], dtype=torch.long) if labelled else None
        return ImageData(torch.from_numpy(whole), ids_of, self.names, where)

    def read_plain(self, parts: Sequence[ImageSource]) -> tuple[ImageData, list[str]]:
        """The images of all parts, whatever labels they have, and what each is called."""
        blocks, names = list[np.ndarray](), list[str]()
        with strict():
            for part in parts:
                pixels, good = self._pixels(part, range(len(part.images)))
                blocks += [pixels] if len(pixels) else []
                names += [part.place(i) for i in good]
        if len({block.shape[1:] for block in blocks}) != 1:  # as in `read`
            blocks = [np.empty((0, 3, 0, 0), np.uint8)]
        where = ", ".join(part.where for part in parts)
        self._note_conversions(where)
        return ImageData(torch.from_numpy(np.concatenate(blocks)), None, None, where), names

    def _left(self, parts: Sequence[ImageSource], rows: Sequence[Sequence[int]], where: str) -> LazyPixels | None:
        """Encoded images that are decoded later, where they do not fit in memory; None where they do.

        Their size is that of the first; 32 more, evenly spread, are decoded to see whether they can be.
        """
        if self.in_memory is True or any(isinstance(part.images, np.ndarray) for part in parts):
            return None
        count = sum(map(len, rows))
        which = np.repeat(np.arange(len(parts), dtype=np.int32), [len(chosen) for chosen in rows])
        numbers = np.concatenate([np.asarray(chosen, dtype=np.int64) for chosen in rows])
        seen = Counter[str]()
        if not count:
            return None
        with strict():
            try:
                shape = decode(parts[which[0]].images[int(numbers[0])], self.size, seen).shape
            except BadImage:
                return None
        total = count * int(np.prod(shape))
        if not self.lazy or (self.in_memory == "auto" and total <= IN_MEMORY):
            return None
        pixels = LazyPixels(parts, which, numbers, self.size, shape)
        pixels[np.unique(np.linspace(0, count - 1, min(count, 32)).astype(np.int64)).tolist()]
        self._note_size(shape[1:], count, where)
        self.notes.append(
            f"{where}: {count:,} images of {shape[2]}x{shape[1]} are decoded as they are needed, "
            f"{total / 2**30:.1f} GB being too much for memory (data.in_memory)"
        )
        return pixels

    def _classes(self, part: ImageSource, split: SplitName) -> tuple[list[int], list[int]]:
        """The numbers of the images with a sound label, and their class ids; a training image may have none."""
        assert self.names is not None
        look_up = to_ids(part, self.names, self.task)
        rows, ids = [], []
        for i in range(len(part.images)):
            try:
                class_id = look_up(i)
                if class_id == UNLABELLED and split != "train":
                    raise BadLabel("the label is missing")
            except BadLabel as bad:
                self.faults.append(f"{part.place(i)}: {bad}")
                unknown = isinstance(bad, UnknownLabel)
                self._labelled, self._unknown = self._labelled + unknown, self._unknown + unknown
                continue
            ids.append(class_id)
            rows.append(i)
            self._labelled += class_id != UNLABELLED
        return rows, ids

    def _pixels(self, part: ImageSource, rows: Sequence[int]) -> tuple[np.ndarray, list[int]]:
        """The images of these numbers, and which of the numbers (by place) could be read."""
        if isinstance(part.images, np.ndarray):
            try:
                pixels = to_bytes(part.images)
            except UserError as error:
                raise UserError(error.what, where=part.where, hint=error.hint) from error
            pixels = pixels if len(rows) == len(pixels) else pixels[list(rows)]
            pixels = resized_array(pixels, self.size, self._seen)
            self._note_size(pixels.shape[2:], len(pixels), part.where)
            return pixels, list(range(len(rows)))
        # One array from the first sound image on, rather than a list that is joined: joining takes the memory twice.
        pixels = np.empty((0, 3, 0, 0), np.uint8)
        good: list[int] = []
        for at, i in enumerate(rows):
            try:
                image = decode(part.images[i], self.size, self._seen)
            except BadImage as bad:
                self.faults.append(f"{part.place(i)}: {bad}")
                continue
            self._note_size(image.shape[1:], 1, part.place(i))
            if not good:
                pixels = np.empty((len(rows), *image.shape), np.uint8)
            if image.shape == pixels.shape[1:]:
                pixels[len(good)] = image
                good.append(at)
        return pixels[: len(good)], good

    def _note_size(self, shape: Sequence[int], count: int, place: str) -> None:
        before, first = self.sizes.get(tuple(shape), (0, place))
        self.sizes[tuple(shape)] = before + count, first

    def _note_conversions(self, where: str) -> None:
        self.notes += [f"{where}: {count} images {what}" for what, count in self._seen.items()]
        self._seen.clear()

    def check(self, on_bad_row: OnBadRow, total: int, hint: str | None = None) -> None:
        """Refuse different sizes, and faults unless they are to be skipped.

        ``hint``: what to do about unknown labels; None for the usual.

        Raises:
            UserError: there are some.
        """
        if self.faults and on_bad_row == "error":
            what = listed([f"  {fault}" for fault in self.faults], "\n")
            raise UserError(
                f"{len(self.faults)} of {total} images cannot be used:\n{what}",
                hint=(hint if self._unknown else None)
                or self.other_task
                or "Mend them, or leave them out with --on-bad-row skip.",
            )
        if self.faults:
            self.notes.append(f"{len(self.faults)} bad images left out ({listed(self.faults, '; ')})")
        if len(self.sizes) > 1:
            ordered = sorted(self.sizes.items(), key=lambda item: -item[1][0])
            sizes = [f"  {width}x{height}: {count}, as {place}" for (height, width), (count, place) in ordered]
            raise UserError(
                "the images have different sizes (width x height):\n" + listed(sizes, "\n"),
                hint="Give all of them one size: --size 32.",
            )

"""From the parts of a source to arrays of one size with class ids, and what is wrong with them."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from contraverse.data.folder import SplitName
from contraverse.data.images.classes import BadLabel, UnknownLabel, is_hidden, to_ids
from contraverse.data.images.dataset import ImageData, to_bytes
from contraverse.data.images.decode import BadImage, decode, resized_array, strict
from contraverse.data.images.parts import Part, listed
from contraverse.data.images.tasks import ImageTask
from contraverse.data.reading import OnBadRow
from contraverse.errors import UserError
from contraverse.types import UNLABELLED


@dataclass
class Reading:
    """Decodes parts into arrays of one size, and keeps what is wrong with them and what was converted."""

    task: ImageTask
    names: tuple[str, ...] | None
    size: int | None
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

    def read(self, parts: Sequence[Part], split: SplitName) -> ImageData | None:
        """The images of one split; None where it is to be measured on and has no labels, which is noted."""
        where = ", ".join(part.where for part in parts)
        labelled = self.names is not None
        if split != "train" and (not labelled or all(map(is_hidden, parts))):
            self.notes.append(f"{where}: has no labels, so it is not used as a {split} split")
            return None
        blocks, labels = list[np.ndarray](), list[int]()
        with strict():
            for part in parts:
                self.faults += part.faults
                rows, ids = self._classes(part, split) if labelled else (list(range(len(part.images))), [])
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

    def read_plain(self, parts: Sequence[Part]) -> tuple[ImageData, list[str]]:
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

    def _classes(self, part: Part, split: SplitName) -> tuple[list[int], list[int]]:
        """The numbers of the images with a sound label, and their class ids; a training image may have none."""
        assert self.names is not None
        look_up = to_ids(part, self.names, self.task)
        rows, ids = [], []
        for i in range(len(part.images)):
            try:
                found = look_up(i)
                if found == UNLABELLED and split != "train":
                    raise BadLabel("the label is missing")
            except BadLabel as bad:
                self.faults.append(f"{part.place(i)}: {bad}")
                unknown = isinstance(bad, UnknownLabel)
                self._labelled, self._unknown = self._labelled + unknown, self._unknown + unknown
                continue
            ids.append(found)
            rows.append(i)
            self._labelled += found != UNLABELLED
        return rows, ids

    def _pixels(self, part: Part, rows: Sequence[int]) -> tuple[np.ndarray, list[int]]:
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
                one = decode(part.images[i], self.size, self._seen)
            except BadImage as bad:
                self.faults.append(f"{part.place(i)}: {bad}")
                continue
            self._note_size(one.shape[1:], 1, part.place(i))
            if not good:
                pixels = np.empty((len(rows), *one.shape), np.uint8)
            if one.shape == pixels.shape[1:]:
                pixels[len(good)] = one
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
            told = [f"  {width}x{height}: {count}, as {place}" for (height, width), (count, place) in ordered]
            raise UserError(
                "the images have different sizes (width x height):\n" + listed(told, "\n"),
                hint="Give all of them one size: --size 32.",
            )

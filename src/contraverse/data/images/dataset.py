"""Images with their labels, split into training, validation and test images, and their batches."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from pathlib import Path
from typing import Any, ClassVar, Self, overload

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from contraverse.data.images.lazy import LazyPixels
from contraverse.data.images.source import natural
from contraverse.data.images.tasks import ImageTask
from contraverse.data.splits import OnBadRow, Splits, balanced_rows, part_rows, sample_rows
from contraverse.errors import UserError
from contraverse.types import UNLABELLED


@dataclass(eq=False, repr=False)
class ImageData(Dataset[dict[str, Any]]):
    """Images as bytes, in memory or decoded when a batch is made.

    ``pixels``: (N, C, H, W) uint8, a tensor or `LazyPixels`. ``labels``: (N,) int64 class ids in
    [0, len(label_names)), `UNLABELLED` for a training image that has none, or None: no labels at all. ``source``: where
    they are from. ``notes``: what was decided when they were read, in sentences. Made by `from_folder`, `from_dataset`,
    `from_arrays` or `load_images`.

    An item is ``{"pixel_values": (C, H, W) uint8, "index": int}``, with ``label`` (int) if there are labels; ``index``
    is the image's number here. ``collate``, an `ImageCollator`, makes batches of them.
    """

    unit: ClassVar[str] = "image"

    pixels: Tensor | LazyPixels
    labels: Tensor | None
    label_names: tuple[str, ...] | None
    source: str = "memory"
    notes: list[str] = field(default_factory=list)

    @classmethod
    def from_arrays(
        cls,
        pixels: np.ndarray | Tensor,
        labels: Sequence[int] | Sequence[str] | np.ndarray | Tensor | None = None,
        label_names: Sequence[str] | None = None,
    ) -> Self:
        """Images from arrays.

        ``pixels``: (N, H, W) grey, (N, H, W, C) or (N, C, H, W) with 1 or 3 channels; whole numbers from 0 to 255 or
        floats from 0 to 1. One channel becomes three. ``labels``: class ids or class names; ``label_names`` default to
        "0", "1", ... up to the largest id, or to the names in natural order.

        Raises:
            UserError: no images, another shape, values out of range, or a label that is missing or is no class.
        """
        images = to_bytes(np.asarray(pixels))
        if labels is None:
            return cls(torch.from_numpy(images), None, tuple(label_names) if label_names else None)
        ids = np.asarray(labels)
        if ids.dtype.kind in "UO" and all(isinstance(name, str) for name in ids.tolist()):
            label_names = label_names or sorted(set(ids.tolist()), key=natural)
            known = {name: i for i, name in enumerate(label_names)}
            unknown = [(i, name) for i, name in enumerate(ids.tolist()) if name not in known]
            if unknown:
                i, name = unknown[0]
                raise UserError(f"label {name!r} is none of the {len(known)} classes", where=f"image {i}")
            ids = np.asarray([known[name] for name in ids.tolist()])
        if ids.shape != (len(images),) or ids.dtype.kind not in "iu":
            raise UserError(f"{len(images)} images, but labels of shape {ids.shape} and type {ids.dtype}")
        names = tuple(label_names) if label_names else tuple(str(i) for i in range(int(ids.max()) + 1))
        wrong = np.flatnonzero((ids < 0) | (ids >= len(names)))
        if len(wrong):
            raise UserError(f"label {ids[wrong[0]]} is none of the {len(names)} classes", where=f"image {wrong[0]}")
        return cls(torch.from_numpy(images), torch.from_numpy(ids.astype(np.int64)), names)

    @classmethod
    def from_folder(
        cls,
        folder: str | Path,
        *,
        size: int | None = None,
        label_names: Sequence[str] | None = None,
        on_bad_row: OnBadRow = "error",
    ) -> "ImageData":
        """Every image of a folder that holds a folder for each class, or of an npz or Parquet file.

        ``size``: height and width to which the shorter side is scaled, the longer one cut; None where all images have
        one size. ``label_names``: the classes in the order of their ids, None for the names of the folders in natural
        order; give those of the training images where test images may lack some. Images in a folder called unlabelled
        have none. Images straight in the folder have no labels.

        Raises:
            UserError: the folder cannot be read or holds several splits, images cannot be read, or sizes differ.
        """
        from contraverse.data.images.load import load_every_image

        splits = load_every_image(folder, size=size, label_names=label_names, on_bad_row=on_bad_row)
        several = [name for name in ("train", "validation", "test") if getattr(splits, name) is not None]
        if several != ["train"]:
            raise UserError(
                f"holds the splits {', '.join(several)}",
                where=str(folder),
                hint='Name the folder of one of them, or take load_images("images", folder).',
            )
        return _only(splits)

    @overload
    @classmethod
    def from_dataset(
        cls,
        dataset: Mapping[str, Any],
        *,
        image: str | None = None,
        label: str | None = None,
        size: int | None = None,
        label_names: Sequence[str] | None = None,
        on_bad_row: OnBadRow = "error",
    ) -> "ImageSplits": ...

    @overload
    @classmethod
    def from_dataset(
        cls,
        dataset: Any,
        *,
        image: str | None = None,
        label: str | None = None,
        size: int | None = None,
        label_names: Sequence[str] | None = None,
        on_bad_row: OnBadRow = "error",
    ) -> "ImageData": ...

    @classmethod
    def from_dataset(
        cls,
        dataset: Any,
        *,
        image: str | None = None,
        label: str | None = None,
        size: int | None = None,
        label_names: Sequence[str] | None = None,
        on_bad_row: OnBadRow = "error",
    ) -> "ImageData | ImageSplits":
        """Every image of a `datasets.Dataset`, or of a `DatasetDict`: `ImageSplits` of its splits.

        ``image``: the column of the images (the feature Image, encoded bytes, or arrays), ``label``: that of the
        classes; both are found by their usual names. Classes are names, or ids of the feature ClassLabel, whose names
        are kept in the order of the ids. The other arguments are those of `from_folder`.

        Raises:
            UserError: a column is not there, images or labels cannot be used, or sizes differ.
        """
        from contraverse.data.images.load import load_every_image

        if not hasattr(dataset, "column_names"):
            raise UserError(f"a Dataset or DatasetDict of datasets is wanted, not a {type(dataset).__name__}")
        splits = load_every_image(
            dataset, image=image, label=label, size=size, label_names=label_names, on_bad_row=on_bad_row
        )
        return splits if isinstance(dataset, Mapping) else _only(splits)

    def __getitems__(self, numbers: Sequence[int]) -> "ImageItems":
        """Items ``numbers``, fetched at once, as a loader of torch asks for those of a batch."""
        return ImageItems(self, numbers)

    @property
    def lengths(self) -> np.ndarray:
        """(N,) ones: an image is as long as any other, to who makes batches of items of like length."""
        return np.ones(len(self), dtype=np.int64)

    @staticmethod
    def collate(items: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """One batch of ``items``."""
        return ImageCollator()(items)

    def __len__(self) -> int:
        return len(self.pixels)

    def __repr__(self) -> str:
        size = " x ".join(map(str, self.pixels.shape[1:]))
        classes = "no labels" if self.labels is None else f"{len(self.label_names or ())} classes"
        return f"ImageData({len(self)} images of {size}, {classes}, from {self.source})"

    def __getitem__(self, index: int) -> dict[str, Any]:
        item: dict[str, Any] = {"pixel_values": self.pixels[index], "index": int(index)}
        if self.labels is not None:
            item["label"] = int(self.labels[index])
        return item

    def select(self, rows: Sequence[int]) -> "ImageData":
        """The images of these numbers, in this order."""
        at = torch.as_tensor(rows, dtype=torch.long)
        labels = None if self.labels is None else self.labels[at]
        pixels = self.pixels.take(at) if isinstance(self.pixels, LazyPixels) else self.pixels[at]
        return ImageData(pixels, labels, self.label_names, self.source)

    def split(self, fraction: float, seed: int = 42) -> tuple["ImageData", "ImageData"]:
        """``(rest, part)``: ``part`` has this fraction of the images, stratified by class, as `TextData.split` does.

        Where there are labels it is a fraction of the images that have one.
        """
        rows = self._numbers_to_draw()
        classes = None if self.labels is None else self.labels[rows].tolist()
        _, drawn = part_rows(len(rows), classes, fraction, seed, self.source)
        part = torch.zeros(len(self), dtype=torch.bool)
        part[rows[drawn]] = True
        return self.select((~part).nonzero()[:, 0].tolist()), self.select(part.nonzero()[:, 0].tolist())

    def sample(self, n: int, seed: int = 42) -> "ImageData":
        """``n`` of the images, stratified by class, or all of them, as `TextData.sample` does.

        Those without a label are drawn as if that were a class.
        """
        classes = None if self.labels is None else self.labels.tolist()
        return self.select(sample_rows(len(self), classes, n, seed))

    def labelled_fraction(self, amount: str | float, seed: int) -> tuple["ImageData", "ImageData"]:
        """``(unlabelled, labelled)``: labels for a few images, balanced over the classes; the rest without theirs.

        See `labelled_rows`, which draws them.
        """
        drawn = self.labelled_rows(amount, seed)
        rest = torch.ones(len(self), dtype=torch.bool)
        rest[drawn] = False
        unlabelled = self.select(rest.nonzero()[:, 0].tolist())
        unlabelled.labels = None
        return unlabelled, self.select(drawn)

    def labelled_rows(self, amount: str | float, seed: int) -> list[int]:
        """The numbers of a few images, balanced over the classes, that are to keep their label.

        ``amount``: ``"10%"`` of the images that have a label, or a fraction below 1, or a number of images. Each class
        has as many of them as any other, to within one; for one seed, a smaller amount is part of a larger one. This is
        the protocol of label-efficient training in ACL (Jiang et al. 2020): 450 or 4,500 of 45,000 images of CIFAR-10.

        Raises:
            UserError: there are no labels, the amount cannot be read, leaves no image unlabelled or is more than have
                a label, or a class has too few images.
        """
        if self.labels is None or self.label_names is None:
            raise UserError("there are no labels to draw from", where=self.source)
        rows = self._numbers_to_draw()
        n = _count(amount, len(rows))
        if n >= len(self):
            raise UserError(f"{n:,} labels of {len(self):,} images leave none unlabelled", where=self.source)
        if n > len(rows):
            raise UserError(f"{n:,} labels, and {len(rows):,} of {len(self):,} images have one", where=self.source)
        drawn = balanced_rows(self.labels[rows].tolist(), self.label_names, n, seed, self.source)
        return [int(row) for row in rows[drawn]]

    @property
    def has_label(self) -> Tensor:
        """(N,) bool: which images have a label."""
        if self.labels is None:
            return torch.zeros(len(self), dtype=torch.bool)
        return self.labels != UNLABELLED

    def labelled(self) -> "ImageData":
        """The images that have a label: these themselves where all do, or none has."""
        if self.labels is None or self.has_label.all():
            return self
        return self.select(self.has_label.nonzero()[:, 0].tolist())

    @property
    def class_ids(self) -> list[int] | None:
        """The class ids of the images that have a label; None where there are no labels."""
        if self.labels is None or self.label_names is None:
            return None
        ids: list[int] = self.labels[self.has_label].tolist()
        return ids

    @property
    def num_labelled(self) -> int:
        """Number of images that have a label."""
        return int(self.has_label.sum())

    @property
    def contents(self) -> np.ndarray:
        """(N,) int64 digests of the images' pixels; of images that are not decoded yet, of their places."""
        if isinstance(self.pixels, LazyPixels):
            return self.pixels.digests()
        digests = b"".join(blake2b(image.tobytes(), digest_size=8).digest() for image in self.pixels.numpy())
        return np.frombuffer(digests, dtype=np.int64)

    def _numbers_to_draw(self) -> Tensor:
        """Numbers of the images that have a label; of all images where there are no labels."""
        return torch.arange(len(self)) if self.labels is None else self.has_label.nonzero()[:, 0]


def _only(splits: "ImageSplits") -> ImageData:
    return replace(splits.need("train"), notes=splits.notes)


def _count(amount: str | float, total: int) -> int:
    """Number of images that ``amount`` of ``total`` is: a percentage, a fraction below 1, or a whole number."""
    written = str(amount).strip()
    try:
        value = float(written.removesuffix("%"))
    except ValueError:
        value = math.nan
    whole = value >= 1 and not written.endswith("%")
    if not 0 < value < math.inf or (whole and value != int(value)):
        raise UserError(f"{amount!r} is no number of labels", hint='Give "1%", a fraction below 1 or a whole number.')
    if whole:
        return int(value)
    return round(total * value / 100 if written.endswith("%") else total * value)


def to_bytes(pixels: np.ndarray) -> np.ndarray:
    """(N, 3, H, W) uint8 from grey or coloured images in the shapes and ranges of `ImageData.from_arrays`; a copy."""
    pixels, top = _channels_first(pixels)
    if pixels.dtype != np.uint8:
        pixels = np.rint(pixels * (255 / top)).astype(np.uint8)
    return np.array(np.broadcast_to(pixels, (len(pixels), 3, *pixels.shape[2:])), order="C")


def to_floats(pixels: np.ndarray) -> np.ndarray:
    """As `to_bytes`, but (N, 3, H, W) float32 in [0, 1]: floats are not rounded to bytes."""
    pixels, top = _channels_first(pixels)
    floats = pixels.astype(np.float32) / np.float32(top)
    return np.array(np.broadcast_to(floats, (len(floats), 3, *floats.shape[2:])), order="C")


def _channels_first(pixels: np.ndarray) -> tuple[np.ndarray, int]:
    """Images (N, C, H, W) with 1 or 3 channels, and their largest possible value, 1 or 255."""
    shape = pixels.shape
    if pixels.ndim == 3:
        pixels = pixels[:, None]
    elif pixels.ndim == 4 and pixels.shape[-1] in (1, 3):
        pixels = pixels.transpose(0, 3, 1, 2)
    if pixels.ndim != 4 or pixels.shape[1] not in (1, 3) or not pixels.size:
        raise UserError(
            f"an array of shape {shape} holds no images",
            hint="Wanted: (N, H, W), (N, H, W, C) or (N, C, H, W), with C = 1 or 3 and N at least 1.",
        )
    top = 1 if pixels.dtype.kind == "f" else 255
    if pixels.dtype != np.uint8 and (pixels.dtype.kind not in "iuf" or not (pixels.min() >= 0 and pixels.max() <= top)):
        raise UserError(
            f"the pixels are {pixels.dtype} from {pixels.min()} to {pixels.max()}",
            hint="Wanted: whole numbers from 0 to 255, or floats from 0 to 1, before any normalisation.",
        )
    return pixels, top


class ImageItems(Sequence[dict[str, Any]]):
    """Items of an `ImageData` by their numbers: made one by one where they are asked for, or as one ``batch``."""

    def __init__(self, data: ImageData, numbers: Sequence[int]) -> None:
        self.data, self.numbers = data, list(numbers)

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, number: Any) -> Any:
        return self.data[self.numbers[number]]

    def batch(self) -> dict[str, Tensor]:
        """The batch of `ImageCollator`, its bytes copied, cast and scaled once."""
        index = torch.tensor(self.numbers)
        batch = {"pixel_values": self.data.pixels[index].float().div_(255), "index": index}
        if self.data.labels is not None:
            batch["labels"] = self.data.labels[index]
        return batch


class ImageCollator:
    """Items of `ImageData` to one batch.

    ``pixel_values``: (B, C, H, W) float32 in [0, 1]; the normalisation is the model's, so that an epsilon is in pixels.
    ``labels``: (B,) int64, left out where the items have none. ``index``: (B,) int64.
    """

    def __call__(self, items: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        if isinstance(items, ImageItems):
            return items.batch()
        batch = {
            "pixel_values": torch.stack([item["pixel_values"] for item in items]).float() / 255,
            "index": torch.tensor([item["index"] for item in items]),
        }
        if "label" in items[0]:
            batch["labels"] = torch.tensor([item["label"] for item in items])
        return batch


@dataclass
class ImageSplits(Splits[ImageData]):
    """Splits of images, made by `load_images`; ``task`` has the classes of the images.

    ``hidden``: the labels of training images that lack theirs on purpose, (N,) int64, `UNLABELLED` where unknown: to
    measure pseudo-labels and features by, and for nothing else. ``figures``: metrics of the training images that were
    measured before training, by name.
    """

    task: ImageTask
    hidden: Tensor | None = None
    figures: dict[str, float] = field(default_factory=dict)

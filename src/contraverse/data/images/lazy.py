"""Pixels that are decoded when they are asked for, with the part of a tensor's interface that is used of them."""

from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from hashlib import blake2b
from os import cpu_count
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import get_worker_info

from contraverse.data.images.source import BadImage, Encoded, ImageSource, decode, strict
from contraverse.errors import UserError

IN_MEMORY = 2 * 2**30
"""Bytes of decoded pixels of a split up to which it is held in memory, where the user leaves it to the library."""
_THREADS = min(8, cpu_count() or 1)


class LazyPixels:
    """Encoded images of one size as (N, 3, H, W) uint8; rows are decoded when they are indexed.

    In a worker of a loader by the worker, else by up to eight threads.

    Args:
        parts: sources of encoded images.
        which: (N,) int32 numbers of the part of each image.
        rows: (N,) int64 numbers of the images in their parts.
        size: side that images are scaled to; None leaves them.
        shape: channels, height and width of each image.
    """

    def __init__(
        self,
        parts: Sequence[ImageSource],
        which: np.ndarray,
        rows: np.ndarray,
        size: int | None,
        shape: tuple[int, ...],
    ) -> None:
        self._parts, self._which, self._rows, self._size = parts, which, rows, size
        self.shape = torch.Size((len(rows), *shape))

    def __len__(self) -> int:
        return len(self._rows)

    def take(self, numbers: Any) -> "LazyPixels":
        """The images of these numbers, not decoded."""
        at = np.asarray(numbers, dtype=np.int64)
        return LazyPixels(self._parts, self._which[at], self._rows[at], self._size, tuple(self.shape[1:]))

    def __getitem__(self, index: Any) -> Tensor:
        numbers = np.arange(len(self))[np.asarray(index) if isinstance(index, Tensor | list) else index]
        if np.ndim(numbers) == 0:
            return torch.from_numpy(self._decoded([int(numbers)])[0])
        return torch.from_numpy(self._decoded(numbers.tolist()))

    def split(self, size: int) -> Iterator[Tensor]:
        """Batches of ``size`` images in order."""
        return (self[first : first + size] for first in range(0, len(self), size))

    def numpy(self) -> np.ndarray:
        """All images, decoded."""
        return self._decoded(list(range(len(self))))

    def contiguous(self) -> Tensor:
        """All images, decoded."""
        return self[:]

    def permute(self, *dims: int) -> Tensor:
        """All images, decoded, with their axes in another order."""
        return self[:].permute(*dims)

    def place(self, number: int) -> str:
        """Name of an image in messages."""
        return self._parts[self._which[number]].place(int(self._rows[number]))

    def digests(self) -> np.ndarray:
        """(N,) int64 digests of the images' places, which are not decoded for it."""
        places = (blake2b(self.place(i).encode(), digest_size=8).digest() for i in range(len(self)))
        return np.frombuffer(b"".join(places), dtype=np.int64)

    def _decoded(self, numbers: Sequence[int]) -> np.ndarray:
        pixels = np.empty((len(numbers), *self.shape[1:]), np.uint8)
        with strict():
            if len(numbers) < 8 or get_worker_info() is not None:
                images: Any = map(self._decode, numbers)
                for place, image in enumerate(images):
                    pixels[place] = image
            else:
                with ThreadPoolExecutor(_THREADS) as pool:
                    for place, image in enumerate(pool.map(self._decode, numbers)):
                        pixels[place] = image
        return pixels

    def _decode(self, number: int) -> np.ndarray:
        image: Encoded = self._parts[self._which[number]].images[int(self._rows[number])]
        try:
            pixels = decode(image, self._size, Counter())
        except BadImage as bad:
            raise UserError(
                f"the image cannot be used: {bad}",
                where=self.place(number),
                hint="Mend it, or find all such images before training: --on-bad-row skip decodes each of them once.",
            ) from bad
        if pixels.shape != tuple(self.shape[1:]):
            sides, others = "x".join(map(str, pixels.shape[:0:-1])), "x".join(map(str, self.shape[:1:-1]))
            raise UserError(
                f"the image is {sides} and the others are {others} (width x height)",
                where=self.place(number),
                hint="Give all of them one size: --size 32.",
            )
        return pixels


class Paths(Sequence[Path]):
    """Paths of many files, kept as text; see `contraverse.data.tables.Strings`."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = names

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, index: Any) -> Any:
        names = self._names[index]
        return [Path(name) for name in names] if isinstance(names, list) else Path(names)


class RowNames(Sequence[str]):
    """Names of the rows of a table in messages."""

    def __init__(self, where: str, count: int) -> None:
        self._where, self._count = where, count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: Any) -> Any:
        return f"{self._where}, row {index + 1}"

"""Images as a source gives them, arrays or encoded files, and decoding them to RGB bytes.

An image that cannot be read faithfully is refused with the reason.
"""

import io
import os
import re
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

EXTENSIONS = frozenset(".png .jpg .jpeg .jpe .jfif .bmp .gif .webp .tif .tiff .ppm .pgm .pbm .pnm".split())
_FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF", "PPM")
"""The formats that are tried, whatever a file is called: Pillow has others that run programs (EPS)."""
_ORIENTATION = 0x0112
_DIGITS = re.compile("[0-9]+")


class Member(NamedTuple):
    """Encoded image within a file: ``size`` bytes from ``start`` on."""

    path: Path
    start: int
    size: int
    name: str


Encoded = Path | bytes | Member | None
"""Encoded image: its file, its bytes, a part of a file, or nothing where it is missing."""


@dataclass(frozen=True)
class ImageSource:
    """Images of one file or folder, all of one split.

    ``where`` names it in messages. ``images``: an array that `to_bytes` takes, or for each image its file or its
    encoded bytes (None where they are missing). ``labels``: class names or numbers as they came, None without labels.
    ``places``: what each image is called in messages, None for "image 0", "image 1", ... ``classes``: the names that
    the source itself declares for numbers. ``faults``: what was to be an image and cannot be one, and why.
    """

    where: str
    images: np.ndarray | Sequence[Encoded]
    labels: Sequence[Any] | None
    places: Sequence[str] | None = None
    classes: tuple[str, ...] | None = None
    faults: list[str] = field(default_factory=list)

    def place(self, i: int) -> str:
        """Name of image ``i`` in messages."""
        if self.places is not None:
            return self.places[i]
        image = None if isinstance(self.images, np.ndarray) else self.images[i]
        if isinstance(image, Member):
            return f"{spelled(image.path)}, {image.name}"
        return spelled(image) if isinstance(image, Path) else f"{self.where}, image {i}"


def spelled(path: Path | str) -> str:
    """``path`` as text that can be written anywhere: bytes that are not UTF-8 as escapes."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def is_image(name: str) -> bool:
    """True where a file's name ends as one of an image."""
    return f".{name.rpartition('.')[2].lower()}" in EXTENSIONS


def natural(name: str) -> tuple[str, str]:
    """Key that sorts ``class2`` before ``class10``, regardless of case; a text before one that it begins."""
    return _DIGITS.sub(_in_order, name.casefold()), name


def _in_order(number: re.Match[str]) -> str:
    # Length before digits, and a NUL, which is in no name, before both: strings then compare as numbers do.
    # Of equal numbers 007 goes before 07, and 0 before 00, as texts do.
    digits = number[0].lstrip("0")
    zeros = len(number[0]) - len(digits)
    return f"\0{len(digits):04d}{digits}{9999 - zeros if digits else zeros:04d}"


class BadImage(Exception):
    """An image that cannot be used, and why."""


@contextmanager
def strict() -> Iterator[None]:
    """Within it a decompression bomb is an error, and Pillow's remarks on metadata are not shown."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


def decode(data: Encoded, size: int | None, seen: Counter[str]) -> np.ndarray:
    """(3, H, W) uint8 of one encoded image; ``seen`` counts what was converted on the way, in words.

    Palettes, CMYK and other colour spaces become RGB, grey becomes three equal channels, transparency is laid on
    white, a photo is turned as its EXIF data says, and of several frames the first is read. With ``size`` the shorter
    side is scaled to it (bilinear, antialiased) and the longer one is cut at both ends.

    Raises:
        BadImage: it is missing, empty, no image of a known format, broken, cut short, or has more than 8 bits a channel
            in one grey channel: how such values map to 8 bits only their owner knows.
    """
    if isinstance(data, Member):
        try:
            with data.path.open("rb") as file:
                file.seek(data.start)
                data = file.read(data.size)
        except OSError as error:
            raise BadImage(f"cannot be read ({error.strerror})") from error
    if data is None or data == b"":
        raise BadImage("the image is missing" if data is None else "the image is empty")
    if isinstance(data, Path) and not data.exists():
        raise BadImage("there is no such file")
    if isinstance(data, Path) and not data.is_file():  # a pipe would be waited for, a device never end
        raise BadImage("is a pipe, a device or a folder, not a file")
    try:
        with Image.open(io.BytesIO(data) if isinstance(data, bytes) else data, formats=_FORMATS) as image:
            image.load()
            return pil_pixels(image, size, seen)
    except BadImage:
        raise
    except UnidentifiedImageError as error:
        empty = isinstance(data, Path) and not data.stat().st_size
        raise BadImage("the file is empty" if empty else "is no image, or its start is broken") from error
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, struct.error and others on broken data.
        raise BadImage(f"cannot be decoded ({str(error) or type(error).__name__})") from error


def pil_pixels(image: Image.Image, size: int | None, seen: Counter[str]) -> np.ndarray:
    """(3, H, W) uint8 of one image that Pillow has opened, converted as `decode` says.

    Raises:
        BadImage: it has more than 8 bits a channel.
    """
    return _to_array(resized(_to_rgb(_upright(image, seen), seen), size, seen))


def _upright(image: Image.Image, seen: Counter[str]) -> Image.Image:
    if getattr(image, "n_frames", 1) > 1:
        seen["have several frames, of which the first is read"] += 1
    if image.getexif().get(_ORIENTATION, 1) == 1:
        return image
    seen["are turned as their EXIF data says"] += 1
    return ImageOps.exif_transpose(image)


def _to_rgb(image: Image.Image, seen: Counter[str]) -> Image.Image:
    mode = image.mode
    if mode in ("I", "F") or mode.startswith("I;"):
        raise BadImage(f"has more than 8 bits a channel (mode {mode}): convert it to 8 bits first")
    if image.has_transparency_data:
        layered = image.convert("RGBA")
        if np.asarray(layered)[:, :, 3].min() < 255:
            seen["have transparent parts, which are laid on white"] += 1
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), layered).convert("RGB")
    if mode == "P":
        seen["have a palette and are converted to RGB"] += 1
    elif mode in ("L", "1"):
        seen["are grey and get three equal channels"] += 1
    elif mode != "RGB":
        seen[f"are {mode} and are converted to RGB without a colour profile"] += 1
    return image.convert("RGB")


def resized(image: Image.Image, size: int | None, seen: Counter[str]) -> Image.Image:
    """The image with its shorter side scaled to ``size`` and the longer one cut at both ends; None leaves it."""
    if size is None or image.size == (size, size):
        return image
    seen[f"are resized to {size}x{size}"] += 1
    if image.width != image.height:
        seen["are not square and are cut to a square"] += 1
    return ImageOps.fit(image, (size, size), Image.Resampling.BILINEAR)


def resized_array(pixels: np.ndarray, size: int | None, seen: Counter[str]) -> np.ndarray:
    """(N, 3, size, size) of (N, 3, H, W) uint8, as `resized` does; as it is where there is nothing to do."""
    if size is None or pixels.shape[2:] == (size, size):
        return pixels
    images = (Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0))) for image in pixels)
    return np.stack([_to_array(resized(image, size, seen)) for image in images])


def _to_array(image: Image.Image) -> np.ndarray:
    return np.asarray(image).transpose(2, 0, 1)

"""The 19 corruptions of CIFAR-10-C (Hendrycks and Dietterich, 2019), made of single images of 32 x 32.

Written from the paper and from the parameters that its authors published with CIFAR-10-C (``make_cifar_c.py`` in their
repository ``robustness``): ImageNet-C's corruptions at strengths of their own for small images. Values are cut to
bytes, not rounded, but where ImageMagick blurs motion. The files of CIFAR-10-C were drawn with random numbers that
nobody kept: figures on images that are made here are estimates of those on the files.

A corruption takes an image (32, 32, 3) in [0, 1], its parameters at a severity and a generator, and gives an image in
[0, 1], from which `corrupt` makes bytes.
"""

import functools
import importlib.resources
import io
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from PIL import Image
from scipy import ndimage

from contraverse.attacks.weather import plasma

Floats = np.ndarray
Random = np.random.Generator

SIDE = 32
PARAMETERS: dict[str, tuple[Any, ...]] = {
    "gaussian_noise": (0.04, 0.06, 0.08, 0.09, 0.10),
    "shot_noise": (500, 250, 100, 75, 50),
    "impulse_noise": (0.01, 0.02, 0.03, 0.05, 0.07),
    "speckle_noise": (0.06, 0.1, 0.12, 0.16, 0.2),
    "gaussian_blur": (0.4, 0.6, 0.7, 0.8, 1),
    "glass_blur": ((0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2)),
    "defocus_blur": ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1)),
    "motion_blur": ((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5)),
    "zoom_blur": (1.06, 1.11, 1.16, 1.21, 1.26),
    "snow": (
        (0.1, 0.2, 1, 0.6, 8, 3, 0.95),
        (0.1, 0.2, 1, 0.5, 10, 4, 0.9),
        (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
        (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85),
        (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
    ),
    "frost": ((1, 0.2), (1, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45)),
    "fog": ((0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75)),
    "spatter": (
        (0.62, 0.1, 0.7, 0.7, 0.5, False),
        (0.65, 0.1, 0.8, 0.7, 0.5, False),
        (0.65, 0.3, 1, 0.69, 0.5, False),
        (0.65, 0.1, 0.7, 0.69, 0.6, True),
        (0.65, 0.1, 0.5, 0.68, 0.6, True),
    ),
    "brightness": (0.05, 0.1, 0.15, 0.2, 0.3),
    "contrast": (0.75, 0.5, 0.4, 0.3, 0.15),
    "saturate": ((0.3, 0), (0.1, 0), (1.5, 0), (2, 0.1), (2.5, 0.2)),
    "jpeg_compression": (80, 65, 58, 50, 40),
    "pixelate": (0.95, 0.9, 0.85, 0.75, 0.65),
    "elastic_transform": ((0, 0, 0.08), (0.05, 0.2, 0.07), (0.08, 0.06, 0.06), (0.1, 0.04, 0.05), (0.1, 0.03, 0.03)),
}
"""By corruption, a parameter or a tuple of them for each severity from 1 to 5; see the function of its name."""


def corrupt(image: np.ndarray, name: str, severity: int, random: Random) -> np.ndarray:
    """``image`` (32, 32, 3) of bytes under the corruption ``name`` at ``severity`` (1 to 5), of bytes.

    Frost, spatter, brightness, saturate and elastic transform need what comes with the package imagecorruptions-imaug.
    """
    made = CORRUPTIONS[name](image / 255, PARAMETERS[name][severity - 1], random)
    return (np.clip(made, 0, 1) * 255).astype(np.uint8)


def gaussian_noise(x: Floats, deviation: float, random: Random) -> Floats:
    """Add normal noise."""
    return x + random.normal(0, deviation, x.shape)


def shot_noise(x: Floats, photons: float, random: Random) -> Floats:
    """Count photons: a Poisson variable of mean ``photons * x``, over ``photons``."""
    return random.poisson(x * photons) / photons


def impulse_noise(x: Floats, share: float, random: Random) -> Floats:
    """Set a ``share`` of all values to 0 or 1, which are as likely."""
    hit, salt = random.random(x.shape) < share, random.random(x.shape) < 0.5
    return np.where(hit, salt, x)


def speckle_noise(x: Floats, deviation: float, random: Random) -> Floats:
    """Add normal noise in proportion to the value."""
    return x + x * random.normal(0, deviation, x.shape)


def gaussian_blur(x: Floats, deviation: float, random: Random) -> Floats:
    """Blur by a Gaussian, in pixels."""
    return ndimage.gaussian_filter(x, (deviation, deviation, 0), mode="nearest")


def glass_blur(x: Floats, parameters: tuple[float, int, int], random: Random) -> Floats:
    """Blur, take each pixel from up to ``reach`` pixels above or to the left, ``times`` over, and blur again.

    The paper's text speaks of swapped pixels. The published program copies, since both sides of its exchange are views
    of one array; CIFAR-10-C was made by it.
    """
    deviation, reach, times = parameters
    x = (gaussian_blur(x, deviation, random) * 255).astype(np.uint8) / 255
    inner = np.arange(reach + 1, SIDE - reach + 1)
    rows, columns = np.meshgrid(inner, inner, indexing="ij")
    for _ in range(times):
        left, up = random.integers(-reach, reach, (2, *rows.shape))
        # Pixels are passed from the last to the first, so that what one is taken from is as it was where reach is 1.
        x[rows, columns] = x[rows + up, columns + left]
    return gaussian_blur(x, deviation, random)


def defocus_blur(x: Floats, parameters: tuple[float, float], random: Random) -> Floats:
    """Blur by a disk of a ``radius`` in pixels, whose edge is softened by a Gaussian over 3 x 3 pixels."""
    radius, softness = parameters
    at = np.arange(-8, 9)
    disk = (at[:, None] ** 2 + at**2 <= radius**2).astype(float)
    bell = np.exp(-(np.arange(-1, 2) ** 2) / (2 * softness**2))
    bell /= bell.sum()
    kernel = ndimage.correlate1d(ndimage.correlate1d(disk / disk.sum(), bell, 0, mode="constant"), bell, 1)
    return ndimage.correlate(x, kernel[:, :, None], mode="mirror")


def motion_blur(x: Floats, parameters: tuple[int, float], random: Random) -> Floats:
    """Blur along a line at an angle of -45 to 45 degrees."""
    return _moved(x, *parameters, random.uniform(-45, 45))


def _moved(x: Floats, radius: int, deviation: float, degrees: float) -> Floats:
    """Blur (H, W, ...) along a half-line: ``2 radius + 1`` pixels by the right half of a Gaussian, to whole bytes."""
    count = np.arange(2 * radius + 1)
    weights = np.exp(-(count**2) / (2 * deviation**2))
    angle, (height, width) = math.radians(degrees), x.shape[:2]
    down, right = (np.ceil(count * slope - 0.5).astype(int) for slope in (math.sin(angle), math.cos(angle)))
    blurred = np.zeros_like(x, dtype=float)
    for weight, dy, dx in zip(weights / weights.sum(), down, right, strict=True):
        rows = np.clip(np.arange(height) + dy, 0, height - 1)
        columns = np.clip(np.arange(width) + dx, 0, width - 1)
        blurred += weight * x[np.ix_(rows, columns)]
    return np.rint(255 * blurred) / 255


def zoom_blur(x: Floats, end: float, random: Random) -> Floats:
    """Take the mean of the image and of magnifications of it by 1, 1.01, ..., as NumPy's ``arange`` ends at ``end``."""
    factors = np.arange(1, end, 0.01)
    return (x + sum(_magnified(x, factor) for factor in factors)) / (len(factors) + 1)


def _magnified(x: Floats, factor: float) -> Floats:
    """The middle of ``x`` (H, H, C), ``factor`` times as large, by linear interpolation: (H, H, C)."""
    side = len(x)
    part = math.ceil(side / factor)
    first = (side - part) // 2
    larger = ndimage.zoom(x[first : first + part, first : first + part], (factor, factor, 1), order=1)
    cut = (len(larger) - side) // 2
    return larger[cut : cut + side, cut : cut + side]


def snow(x: Floats, parameters: tuple[float, float, float, float, int, float, float], random: Random) -> Floats:
    """Lay falling flakes over a paler image.

    Flakes are normal noise of a ``mean`` and ``deviation``, magnified by ``size``, of which what is below ``least`` is
    none; they fall over ``radius`` by ``blur`` at -135 to -45 degrees, and are laid on a second time turned round. Of
    the image a share of ``kept`` stays, the rest is paler.
    """
    mean, deviation, size, least, radius, blur, kept = parameters
    flakes = _magnified(random.normal(mean, deviation, (SIDE, SIDE, 1)), size)
    flakes = np.clip(np.where(flakes < least, 0, flakes), 0, 1)
    flakes = _moved((flakes * 255).astype(np.uint8) / 255, radius, blur, random.uniform(-135, -45))
    grey = x @ (0.299, 0.587, 0.114)
    paler = np.maximum(x, 1.5 * grey[:, :, None] + 0.5)
    return kept * x + (1 - kept) * paler + flakes + np.rot90(flakes, 2)


def frost(x: Floats, parameters: tuple[float, float], random: Random) -> Floats:
    """Lay a random part of a picture of frost over the image, with weights of the image and of the frost."""
    of_image, of_frost = parameters
    picture = _pictures()[random.integers(5)]
    top, left = (random.integers(0, side - SIDE) for side in picture.shape[:2])
    return of_image * x + of_frost * picture[top : top + SIDE, left : left + SIDE]


@functools.cache
def _pictures() -> list[Floats]:
    """Five of the published pictures of frost, a fifth as large, (H, W, 3) in [0, 1]."""
    import cv2

    pictures = []
    for name in ("frost1.png", "frost2.png", "frost3.png", "frost4.jpg", "frost5.jpg"):
        content = (importlib.resources.files("imagecorruptions") / "frost" / name).read_bytes()
        picture: Any = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
        pictures.append(cv2.resize(picture, (0, 0), fx=0.2, fy=0.2)[..., ::-1] / 255)
    return pictures


def fog(x: Floats, parameters: tuple[float, float], random: Random) -> Floats:
    """Lay fog from the diamond-square algorithm over the image, of a ``strength``.

    At each finer level the noise is less by the square of ``decay``: the published program scales it twice.
    """
    strength, decay = parameters
    noise = torch.from_numpy(random.random((1, SIDE, SIDE)))
    height_map = plasma(noise, decay**2)[0].numpy()
    return (x + strength * height_map[:, :, None]) * x.max() / (x.max() + strength)


def spatter(x: Floats, parameters: tuple[float, float, float, float, float, bool], random: Random) -> Floats:
    """Splash water or mud: normal noise of a ``mean`` and ``deviation``, blurred, where it is above ``least``.

    ``strength``: of the water's colour, or the blur of the mud's edge.
    """
    mean, deviation, blur, least, strength, mud = parameters
    liquid = ndimage.gaussian_filter(random.normal(mean, deviation, (SIDE, SIDE)), blur, mode="nearest")
    liquid[liquid < least] = 0
    if mud:
        there = ndimage.gaussian_filter((liquid > least).astype(float), strength, mode="nearest")[:, :, None]
        there[there < 0.8] = 0
        return x * (1 - there) + there * np.array([63, 42, 20]) / 255
    import cv2

    drops = (liquid * 255).astype(np.uint8)
    away = cv2.distanceTransform(255 - cv2.Canny(drops, 50, 150), cv2.DIST_L2, 5)
    relief = cv2.equalizeHist(cv2.blur(np.minimum(away, 20), (3, 3)).astype(np.uint8))
    lit = cv2.filter2D(relief, cv2.CV_8U, np.array([[-2, -1, 0], [-1, 1, 1], [0, 1, 2]]))
    water = drops * cv2.blur(lit, (3, 3)).astype(float)
    water *= strength / max(water.max(), 1e-12)
    return x + water[:, :, None] * np.array([175, 238, 238]) / 255


def brightness(x: Floats, more: float, random: Random) -> Floats:
    """Add to the value of HSV."""
    hsv = _hsv(x)
    hsv[:, :, 2] = np.clip(hsv[:, :, 2] + more, 0, 1)
    return _rgb(hsv)


def saturate(x: Floats, parameters: tuple[float, float], random: Random) -> Floats:
    """Scale the saturation of HSV, and add to it."""
    factor, more = parameters
    hsv = _hsv(x)
    hsv[:, :, 1] = np.clip(hsv[:, :, 1] * factor + more, 0, 1)
    return _rgb(hsv)


def _hsv(x: Floats) -> Floats:
    from skimage.color import rgb2hsv

    converted: Floats = rgb2hsv(x)
    return converted


def _rgb(hsv: Floats) -> Floats:
    from skimage.color import hsv2rgb

    converted: Floats = hsv2rgb(hsv)
    return converted


def contrast(x: Floats, factor: float, random: Random) -> Floats:
    """Bring each channel nearer to its mean."""
    mean = x.mean((0, 1), keepdims=True)
    return (x - mean) * factor + mean


def jpeg_compression(x: Floats, quality: int, random: Random) -> Floats:
    """Compress by JPEG."""
    buffer = io.BytesIO()
    _image(x).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer)) / 255


def pixelate(x: Floats, scale: float, random: Random) -> Floats:
    """Scale down and up again, by the mean over a box."""
    side, box = int(SIDE * scale), Image.Resampling.BOX
    return np.asarray(_image(x).resize((side, side), box).resize((SIDE, SIDE), box)) / 255


def _image(x: Floats) -> Image.Image:
    return Image.fromarray(np.rint(x * 255).astype(np.uint8))


def elastic_transform(x: Floats, parameters: tuple[float, float, float], random: Random) -> Floats:
    """Shift three corners of a square, and every pixel by a smooth random flow.

    All in shares of the image's side: the ``length`` of the flow before it is blurred by ``blur``, and the ``shift``.
    """
    import cv2

    length, blur, shift = (SIDE * share for share in parameters)
    middle, third = SIDE // 2, SIDE // 3
    before = np.array([[1, 1], [1, -1], [-1, -1]], np.float32) * third + middle
    after = before + random.uniform(-shift, shift, before.shape).astype(np.float32)
    turned = cv2.warpAffine(
        x.astype(np.float32), cv2.getAffineTransform(before, after), (SIDE, SIDE), borderMode=cv2.BORDER_REFLECT_101
    )
    flow = random.uniform(-1, 1, (2, SIDE, SIDE))
    down, right = (length * ndimage.gaussian_filter(shifts, blur, mode="reflect", truncate=3) for shifts in flow)
    rows, columns = np.mgrid[:SIDE, :SIDE]
    where = np.stack([rows + down, columns + right])
    channels = [ndimage.map_coordinates(turned[..., c], where, order=1, mode="reflect") for c in range(3)]
    return np.stack(channels, -1)


CORRUPTIONS: dict[str, Callable[[Floats, Any, Random], Floats]] = {
    "gaussian_noise": gaussian_noise,
    "shot_noise": shot_noise,
    "impulse_noise": impulse_noise,
    "speckle_noise": speckle_noise,
    "gaussian_blur": gaussian_blur,
    "glass_blur": glass_blur,
    "defocus_blur": defocus_blur,
    "motion_blur": motion_blur,
    "zoom_blur": zoom_blur,
    "snow": snow,
    "frost": frost,
    "fog": fog,
    "spatter": spatter,
    "brightness": brightness,
    "contrast": contrast,
    "saturate": saturate,
    "jpeg_compression": jpeg_compression,
    "pixelate": pixelate,
    "elastic_transform": elastic_transform,
}

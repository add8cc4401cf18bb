"""Random views of images, drawn on the batch: on any device, each image with draws of its own.

Every draw is made on the CPU, from torch's global generator: a seed, or a resumed run's state of the generator, gives
the same views on every device. Draws travel there in one copy, and nothing waits for the device: how many images a step
concerns is known on the host.
"""

import math
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, NamedTuple

import torch
from pydantic import Field, validate_call
from torch import Tensor
from torch.nn import functional as F

from contraverse.errors import UserError

Augment = Callable[[Tensor], Tensor]
"""From pixels (B, 3, H, W), float in [0, 1], to a view of each: float32 in [0, 1]."""

_TRIES = 10
_RATIO = (3 / 4, 4 / 3)
_LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in a grey value (ITU-R 601), as Pillow has them."""

Probability = Annotated[float, Field(ge=0, le=1)]


class SimCLRAugment:
    """SimCLR's views (Chen et al. 2020, appendix A; Jiang et al. 2020 for 32x32): crop, flip, color jitter, gray, blur.

    With s the ``strength``, in this order:

    - a crop with an area of U(1 - (1 - a) s, 1) of the image's, a being ``smallest_crop``, and an aspect ratio of
      exp U(log 3/4, log 4/3), the first of ten draws that fits (the whole image where none does), scaled to ``size``;
    - a horizontal flip with probability ``flip``, whatever s;
    - with probability .8 s brightness, contrast and saturation by U(1 - .4 s, 1 + .4 s) and a shift of the hue by
      U(-.1 s, .1 s) of a turn, in an order drawn for each image;
    - gray with probability .2 s;
    - a Gaussian blur with probability ``blur`` * s, sigma U(.1, 2), its kernel a tenth of the side wide (3 at least).

    How crop, jitter and gray follow s is DynACL's (Luo et al. 2023), which anneals it; the factors of .4 are those of
    both papers for CIFAR. ``strength`` may be set anew between batches. At 0, without flip, a view is the image itself.

    The crop is resampled as Pillow does it (its filters, antialiased where it shrinks), as a product with one matrix
    for the rows and one for the columns. The cost grows with the third power of the side: about 0.2 million
    multiplications at 32x32, 70 million at 224x224.

    Args:
        strength: s, in [0, 1].
        flip: probability of the mirror image; 0 for digits and others whose mirror image is of no class.
        blur: probability of the blur at s = 1; the papers have none at 32x32.
        size: height and width of a view, None for the image's own.
        resample: the filter of the crop; ACL has "bicubic", DynACL "bilinear".
        smallest_crop: a, share of the image's area that the smallest crop has at s = 1; ACL has .1, SimCLR .08.
    """

    @validate_call
    def __init__(
        self,
        *,
        strength: Probability = 1.0,
        flip: Probability = 0.5,
        blur: Probability = 0.0,
        size: Annotated[int, Field(ge=1)] | None = None,
        resample: Literal["bicubic", "bilinear"] = "bicubic",
        smallest_crop: Annotated[float, Field(gt=0, le=1)] = 0.1,
    ) -> None:
        self.strength, self.flip, self.blur, self.size, self.resample = strength, flip, blur, size, resample
        self.smallest_crop = smallest_crop

    @torch.no_grad()
    def __call__(self, pixels: Tensor) -> Tensor:
        s, x = self.strength, _checked(pixels)
        count = len(x)
        flipped = torch.rand(count) < self.flip  # (B,)
        box = draw_crops(count, (x.shape[2], x.shape[3]), (1 - (1 - self.smallest_crop) * s, 1.0))  # (B, 4)
        jittered, grayed, blurred = torch.rand(3, count)  # (B,) each
        jitter, sizes = draw_jitter(jittered < 0.8 * s, 0.4 * s, 0.1 * s)
        sigma = torch.empty(count).uniform_(0.1, 2.0)  # (B,)
        draws = (flipped, box, grayed < 0.2 * s, blurred < self.blur * s, sigma, *jitter)
        flipped, box, grayed, blurred, sigma, *moved = to_device(x.device, *draws)
        with torch.autocast(x.device.type, enabled=False):
            x = crop(x, box, self.size, flipped.bool(), self.resample).clamp(0, 1)
            x = color_jitter(x, Jitter(*moved), sizes)
            x = _where(grayed.bool(), gray(x).expand_as(x), x)
            if self.blur:
                x = _where(blurred.bool(), gaussian_blur(x, sigma), x)
            return x.clamp(0, 1)


class CropFlip:
    """The light views of supervised and adversarial fine-tuning: black margins, a crop of the own size, a flip.

    Args:
        padding: width of the margin in pixels; the crop's place is uniform.
        flip: probability of the mirror image; 0 for digits.
    """

    @validate_call
    def __init__(self, *, padding: Annotated[int, Field(ge=0)] = 4, flip: Probability = 0.5) -> None:
        self.padding, self.flip = padding, flip

    @torch.no_grad()
    def __call__(self, pixels: Tensor) -> Tensor:
        x = _checked(pixels)
        count, height, width = len(x), x.shape[2], x.shape[3]
        top, left = (torch.randint(2 * self.padding + 1, (count,)) for _ in "yx")
        top, left, flipped = to_device(x.device, top, left, torch.rand(count) < self.flip)
        windows = F.pad(x, (self.padding,) * 4).unfold(2, height, 1).unfold(3, width, 1)
        x = windows[torch.arange(count, device=x.device), :, top.long(), left.long()]
        return _where(flipped.bool(), x.flip(3), x)


class OneView:
    """A batch with a view of each image in place of the image: ``pixel_values``; the rest stays."""

    def __init__(self, augment: Augment) -> None:
        self.augment = augment

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        return {**batch, "pixel_values": self.augment(batch["pixel_values"])}


class TwoViews:
    """A batch with two views of each image: ``pixel_values``, and those of ``positive``; the rest stays."""

    def __init__(self, augment: Augment) -> None:
        self.augment = augment

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        first, second = (self.augment(batch["pixel_values"]) for _ in range(2))
        return {**batch, "pixel_values": first, "positive": {"pixel_values": second}}


def _checked(pixels: Tensor) -> Tensor:
    if pixels.ndim != 4 or pixels.shape[1] != 3 or not pixels.is_floating_point():
        raise UserError(
            f"views are made of pixels (B, 3, H, W) in [0, 1], not of {pixels.dtype} {tuple(pixels.shape)}",
            hint="ImageCollator makes such batches.",
        )
    return pixels.float()


def _where(chosen: Tensor, x: Tensor, other: Tensor) -> Tensor:
    return torch.where(chosen[:, None, None, None], x, other)


def to_device(device: torch.device, *draws: Tensor) -> list[Tensor]:
    """The draws (of the host, any shapes) as float32 on ``device``, in one copy for which the host does not wait.

    Whole numbers are exact up to 16,777,216.
    """
    packed = torch.cat([draw.flatten().float() for draw in draws])
    if device.type == "cuda":  # else the driver copies it once more
        packed = packed.pin_memory()
    parts = packed.to(device, non_blocking=True).split([draw.numel() for draw in draws])
    return [part.view(draw.shape) for part, draw in zip(parts, draws, strict=True)]


def draw_crops(count: int, shape: tuple[int, int], scale: tuple[float, float]) -> Tensor:
    """(count, 4) int64: top, left, height and width of a crop for each image of ``shape`` (height, width).

    Area and aspect ratio as `SimCLRAugment` says; heights and widths are rounded to pixels, places are uniform.
    """
    height, width = shape
    area = torch.empty(count, _TRIES).uniform_(*scale) * height * width
    ratio = torch.empty(count, _TRIES).uniform_(math.log(_RATIO[0]), math.log(_RATIO[1])).exp()
    w, h = (area * ratio).sqrt().round().long(), (area / ratio).sqrt().round().long()
    fits = (w > 0) & (w <= width) & (h > 0) & (h <= height)
    # The fallback stands behind the draws, so that the first that fits is always one of these columns.
    size = torch.stack([h, w], dim=2)
    size = torch.cat([size, torch.tensor([height, width]).expand(count, 1, 2)], dim=1)
    first = torch.cat([fits, torch.ones(count, 1, dtype=torch.bool)], dim=1).int().argmax(1)
    size = size[torch.arange(count), first]
    room = torch.tensor([height, width]) - size
    start = (torch.rand(count, 2) * (room + 1)).long().minimum(room)
    return torch.cat([start, size], dim=1)


def crop(x: Tensor, box: Tensor, size: int | None, flipped: Tensor, resample: Literal["bicubic", "bilinear"]) -> Tensor:
    """The part ``box`` (B, 4: top, left, height, width) of each image at ``size``, mirrored where ``flipped``.

    ``box`` and ``flipped`` (B,) bool are on the device of ``x``.
    """
    top, left, height, width = box.float().unbind(1)
    rows = _resampling(top, height, x.shape[2], size or x.shape[2], resample)
    columns = _resampling(left, width, x.shape[3], size or x.shape[3], resample)
    columns = torch.where(flipped[:, None, None], columns.flip(1), columns)
    return _product(rows, x, columns)


def _resampling(start: Tensor, length: Tensor, n: int, size: int, resample: Literal["bicubic", "bilinear"]) -> Tensor:
    """(B, size, n) weights of ``n`` pixels in each of ``size`` that show the ``length`` pixels from ``start`` on.

    Pillow's: the filter is centred on the new pixel's middle, stretched where it shrinks, cut at the crop's edges and
    divided by its sum.
    """
    scale = (length / size)[:, None, None]
    centre = start[:, None, None] + (torch.arange(size, device=start.device)[:, None] + 0.5) * scale
    pixel = torch.arange(n, device=start.device)
    distance = ((pixel + 0.5 - centre) / scale.clamp(min=1)).abs()
    weights = _bicubic(distance) if resample == "bicubic" else (1 - distance).clamp(min=0)
    first = start[:, None, None]
    weights = weights * ((pixel >= first) & (pixel < first + length[:, None, None]))
    return weights / weights.sum(2, keepdim=True)


def _product(rows: Tensor, x: Tensor, columns: Tensor) -> Tensor:
    """``rows x columns^T`` for each image and channel, as two products of one batch."""
    count, channels, height, _ = x.shape
    across = torch.bmm(x.flatten(1, 2), columns.mT).view(count, channels, height, -1)
    down = torch.bmm(rows, across.transpose(1, 2).flatten(2))
    return down.view(count, rows.shape[1], channels, -1).transpose(1, 2)


def _bicubic(t: Tensor) -> Tensor:
    """Keys' cubic convolution with a = -1/2."""
    near, far = (1.5 * t - 2.5) * t * t + 1, ((-0.5 * t + 2.5) * t - 4) * t + 2
    return torch.where(t < 1, near, torch.where(t < 2, far, torch.zeros_like(t)))


def gray(x: Tensor) -> Tensor:
    """(B, 1, H, W) grey values of (B, 3, H, W)."""
    red, green, blue = x.split(1, dim=1)
    return _LUMA[0] * red + _LUMA[1] * green + _LUMA[2] * blue


class Jitter(NamedTuple):
    """Color jitter of N images: what `plan_jitter` sorted on the host, or that on a device.

    ``moves`` (5, N): numbers of images. Before each of the four steps images are taken in the order of a row, so that
    those with the same operation stand side by side; the last row says where they stood in the batch.
    ``amounts`` (4, N): factor or shift of each step, in that order.
    """

    moves: Tensor
    amounts: Tensor


def draw_jitter(chosen: Tensor, spread: float, turn: float) -> tuple[Jitter, list[list[int]]]:
    """Draws for the images that ``chosen`` (B,) bool marks; see `plan_jitter`, and `color_jitter` for the values.

    Factors are from U(max(0, 1 - spread), 1 + spread), the shift of the hue from U(-turn, turn) of a turn, and the
    order of the four operations is drawn for each image. All B images have draws, so that those of one depend on no
    other.
    """
    count = len(chosen)
    factors = torch.empty(count, 3).uniform_(max(0.0, 1 - spread), 1 + spread)
    shift = torch.empty(count).uniform_(-turn, turn)
    order = torch.rand(count, 4).argsort(1)
    return plan_jitter(chosen.nonzero()[:, 0], factors, shift, order)


def plan_jitter(numbers: Tensor, factors: Tensor, shift: Tensor, order: Tensor) -> tuple[Jitter, list[list[int]]]:
    """Sort the images ``numbers`` (N,) of a batch of B by operation, on the host, for each of the four steps.

    Args:
        numbers: numbers of the images that are changed, in order.
        factors: (B, 3), of brightness, contrast and saturation.
        shift: (B,), of the hue.
        order: (B, 4) operations in their order: 0 to 2 as ``factors``, 3 the hue.

    Returns:
        The jitter, and for each step the numbers of images with each operation: on the host, so that no step waits
        for a device to know how many they are.
    """
    amounts = torch.cat([factors, shift[:, None]], 1)[numbers].gather(1, order[numbers])  # (N, 4), by step
    operations = order[numbers].mT  # (4, N)
    places = operations.argsort(dim=1, stable=True)  # (4, N)
    before = places[:-1].argsort(1)  # (3, N): where the step before put each image
    moves = torch.cat([numbers[places[:1]], before.gather(1, places[1:]), numbers[places[-1:]]])  # (5, N)
    sizes = torch.stack([(operations == operation).sum(1) for operation in range(4)], 1).tolist()
    return Jitter(moves, amounts.mT.gather(1, places)), sizes


def color_jitter(x: Tensor, jitter: Jitter, sizes: list[list[int]]) -> Tensor:
    """Brightness, contrast, saturation and hue of the images in ``jitter``; others stay.

    Brightness mixes an image with black, contrast with the mean of its grey values, saturation with its grey values:
    ``f x + (1 - f) other``. Each step's result is clamped to [0, 1].

    Args:
        x: (B, 3, H, W) pixels.
        jitter: on the device of ``x``.
        sizes: of `plan_jitter`.
    """
    if sum(sizes[0]) == 0:
        return x
    moves, part = jitter.moves.long(), x
    for move, amount, (darker, flatter, paler, _) in zip(moves, jitter.amounts, sizes, strict=False):
        part, amount = part[move], amount[:, None, None, None]  # (N, 3, H, W), (N, 1, 1, 1)
        mixed = darker + flatter + paler
        blend = amount[:mixed] * part[:mixed]
        other = gray(part[darker:mixed])  # (flatter + paler, 1, H, W)
        other[:flatter] = other[:flatter].mean((2, 3), keepdim=True)
        blend[darker:] += (1 - amount[darker:mixed]) * other
        part = torch.cat([blend, _hue(part[mixed:], amount[mixed:])]).clamp_(0, 1)
    return x.index_copy(0, moves[-1], part)


def _hue(x: Tensor, shift: Tensor) -> Tensor:
    """The hue of HSV turned by ``shift`` (B, 1, 1, 1) of a turn; value and saturation stay."""
    red, green, blue = x.split(1, dim=1)
    value = red.maximum(green).maximum(blue)
    chroma = value - red.minimum(green).minimum(blue)
    by = torch.where(chroma > 0, chroma, 1)
    sextant = torch.where(
        value == red,
        (green - blue) / by,
        torch.where(value == green, 2 + (blue - red) / by, 4 + (red - green) / by),
    )
    # How far each channel lies below the value, as a share of the chroma, over the six parts of the turn: 5, 3, 1.
    place = torch.arange(5.0, 0.0, -2.0, device=x.device)[:, None, None]  # made there: a list would be copied
    k = place + (sextant + 6 * shift)
    k -= 6 * (k / 6).floor_()  # several times as fast as %
    return value - chroma * torch.minimum(k, 4 - k).clamp_(0, 1)


def gaussian_blur(x: Tensor, sigma: Tensor) -> Tensor:
    """Each image blurred with its ``sigma`` (B,) in pixels; the kernel is a tenth of the side wide, odd, at least 3.

    At the borders the kernel is cut and divided by its sum.
    """
    rows, columns = (_blurring(n, sigma) for n in x.shape[2:])
    return _product(rows, x, columns)


def _blurring(n: int, sigma: Tensor) -> Tensor:
    radius = max(1, n // 20)
    place = torch.arange(n, device=sigma.device)
    apart = place[:, None] - place  # (n, n)
    weights = torch.exp(-(apart**2) / (2 * sigma[:, None, None] ** 2)) * (apart.abs() <= radius)
    return weights / weights.sum(2, keepdim=True)

"""SimCLR's views one image at a time: Pillow's crop and enhancers, `colorsys` for the hue, loops for the draws."""

import colorsys
import math
import random

import numpy as np
from PIL import Image, ImageEnhance

FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


def to_image(pixels: np.ndarray) -> Image.Image:
    """(3, H, W) floats in [0, 1] that are whole multiples of 1/255."""
    return Image.fromarray(np.rint(pixels.transpose(1, 2, 0) * 255).astype(np.uint8))


def to_pixels(image: Image.Image) -> np.ndarray:
    return np.asarray(image).transpose(2, 0, 1) / 255


def crop(pixels: np.ndarray, box: tuple[int, int, int, int], size: int, resample: str) -> np.ndarray:
    top, left, height, width = box
    part = to_image(pixels).crop((left, top, left + width, top + height))
    return to_pixels(part.resize((size, size), FILTERS[resample]))


def enhance(pixels: np.ndarray, step: int, factor: float) -> np.ndarray:
    """Brightness (0), contrast (1) or saturation (2), in bytes."""
    kinds = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)
    return to_pixels(kinds[step](to_image(pixels)).enhance(factor))


def turn_hue(pixels: np.ndarray, shift: float) -> np.ndarray:
    out = np.empty_like(pixels)
    for y in range(pixels.shape[1]):
        for x in range(pixels.shape[2]):
            hue, saturation, value = colorsys.rgb_to_hsv(*pixels[:, y, x])
            out[:, y, x] = colorsys.hsv_to_rgb((hue + shift) % 1, saturation, value)
    return out


def jitter(pixels: np.ndarray, factors: tuple[float, float, float], shift: float, order: list[int]) -> np.ndarray:
    """The four steps in this order, in floats."""
    x = pixels
    for step in order:
        grey = 0.299 * x[0] + 0.587 * x[1] + 0.114 * x[2]
        if step == 3:
            x = turn_hue(x, shift)
        else:
            other = (0.0, grey.mean(), grey)[step]
            x = factors[step] * x + (1 - factors[step]) * other
        x = x.clip(0, 1)
    return x


def draw_crop(draw: random.Random, height: int, width: int, low: float) -> tuple[int, int, int, int]:
    for _ in range(10):
        area = draw.uniform(low, 1.0) * height * width
        ratio = math.exp(draw.uniform(math.log(3 / 4), math.log(4 / 3)))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            return draw.randint(0, height - h), draw.randint(0, width - w), h, w
    return 0, 0, height, width

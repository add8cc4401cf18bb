"""Corruptions of 32 x 32 images: against the parameters that were published with CIFAR-10-C, and slow references."""

import colorsys
import io
import math
from typing import Any

import numpy as np
import pytest
from PIL import Image
from reference.distortion_reference import diamond_square

from contraverse.evaluation.images import cifar_corruptions as c
from contraverse.evaluation.images.corruptions import ALL_CORRUPTIONS

SEVERITIES = (1, 2, 3, 4, 5)


def grey(value: int = 128) -> np.ndarray:
    return np.full((32, 32, 3), value, np.uint8)


def picture(seed: int = 0) -> np.ndarray:
    """Random colours, smooth from pixel to pixel."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6, 3)).astype(np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((32, 32), Image.Resampling.BILINEAR))


def made(name: str, severity: int, image: np.ndarray, seed: int = 0) -> np.ndarray:
    return c.corrupt(image, name, severity, np.random.default_rng(seed))


def many(name: str, severity: int, image: np.ndarray, times: int = 20) -> np.ndarray:
    """Values in [0, 1]; the half of a byte that is cut off on average is put back."""
    return np.stack([(made(name, severity, image, seed) + 0.5) / 255 for seed in range(times)])


def test_every_corruption_has_a_function_and_parameters_for_five_severities() -> None:
    assert set(c.CORRUPTIONS) == set(c.PARAMETERS) == set(ALL_CORRUPTIONS)
    assert {len(parameters) for parameters in c.PARAMETERS.values()} == {5}


@pytest.mark.parametrize(
    ("name", "published"),
    [
        ("gaussian_noise", [0.04, 0.06, 0.08, 0.09, 0.10]),
        ("shot_noise", [math.sqrt(0.5 / photons) for photons in (500, 250, 100, 75, 50)]),
        ("speckle_noise", [0.5 * share for share in (0.06, 0.1, 0.12, 0.16, 0.2)]),
    ],
)
def test_noise_has_the_published_deviation(name: str, published: list[float]) -> None:
    deviations = [many(name, severity, grey()).std() for severity in SEVERITIES]
    assert deviations == pytest.approx(published, rel=0.02)
    assert many(name, 3, grey()).mean() == pytest.approx(128 / 255, abs=0.002)


def test_impulses_are_the_published_share_of_the_values_black_and_white_alike() -> None:
    for severity, share in zip(SEVERITIES, (0.01, 0.02, 0.03, 0.05, 0.07), strict=True):
        noisy = np.stack([made("impulse_noise", severity, grey(), seed) for seed in range(40)])
        assert set(np.unique(noisy)) == {0, 128, 255}
        assert [(noisy == value).mean() for value in (0, 255)] == pytest.approx([share / 2] * 2, rel=0.06)


def bell(deviation: float, reach: int) -> np.ndarray:
    weights = np.array([math.exp(-((i / deviation) ** 2) / 2) for i in range(-reach, reach + 1)])
    return weights / weights.sum()


def point() -> np.ndarray:
    """One white pixel in the middle of a black image."""
    image = np.zeros((32, 32, 3))
    image[16, 16] = 1
    return image


@pytest.mark.parametrize(("severity", "deviation"), list(zip(SEVERITIES, (0.4, 0.6, 0.7, 0.8, 1.0), strict=True)))
def test_gaussian_blur_has_the_published_width(severity: int, deviation: float) -> None:
    blurred = c.gaussian_blur(point(), c.PARAMETERS["gaussian_blur"][severity - 1], np.random.default_rng(0))
    weights = bell(deviation, 8)
    np.testing.assert_allclose(blurred[8:25, 8:25, 1], np.outer(weights, weights), atol=2e-4)


@pytest.mark.parametrize(
    ("severity", "radius", "softness"), [(1, 0.3, 0.4), (2, 0.4, 0.5), (3, 0.5, 0.6), (4, 1, 0.2), (5, 1.5, 0.1)]
)
def test_defocus_is_a_soft_disk(severity: int, radius: float, softness: float) -> None:
    blurred = c.defocus_blur(point(), c.PARAMETERS["defocus_blur"][severity - 1], np.random.default_rng(0))[..., 0]
    pixels = [(y, x) for y in range(-2, 3) for x in range(-2, 3) if math.hypot(y, x) <= radius]
    expected, edge = np.zeros((32, 32)), bell(softness, 1)
    for y, x in pixels:
        for down in (-1, 0, 1):
            for right in (-1, 0, 1):
                expected[16 + y + down, 16 + x + right] += edge[down + 1] * edge[right + 1] / len(pixels)
    np.testing.assert_allclose(blurred, expected, atol=1e-12)


@pytest.mark.parametrize("degrees", [-40.0, 0.0, 25.0, -90.0])
def test_motion_blur_is_half_a_bell_along_a_line(degrees: float) -> None:
    x, angle = picture() / 255, math.radians(degrees)
    weights = np.array([math.exp(-((i / 2.5) ** 2) / 2) for i in range(19)])
    expected = np.zeros_like(x)
    for row in range(32):
        for column in range(32):
            for i, weight in enumerate(weights / weights.sum()):
                down, right = math.ceil(i * math.sin(angle) - 0.5), math.ceil(i * math.cos(angle) - 0.5)
                expected[row, column] += weight * x[min(max(row + down, 0), 31), min(max(column + right, 0), 31)]
    np.testing.assert_allclose(c._moved(x, *c.PARAMETERS["motion_blur"][4], degrees), expected, atol=0.5 / 255 + 1e-9)


def test_glass_is_the_published_exchange_which_copies() -> None:
    image = picture()
    for severity, times in ((1, 1), (4, 2)):
        deviation = c.PARAMETERS["glass_blur"][severity - 1][0]
        random = np.random.default_rng(3)
        x = (c.gaussian_blur(image / 255, deviation, random) * 255).astype(np.uint8)
        for _ in range(times):
            left, up = random.integers(-1, 1, (2, 30, 30))
            for h in range(31, 1, -1):
                for w in range(31, 1, -1):
                    there = h + up[h - 2, w - 2], w + left[h - 2, w - 2]
                    x[h, w], x[there] = x[there], x[h, w]  # as published: of one array, by views
        expected = (c.gaussian_blur(x / 255, deviation, random) * 255).astype(np.uint8)
        np.testing.assert_array_equal(made("glass_blur", severity, image, 3), expected)


@pytest.mark.parametrize("severity", SEVERITIES)
def test_zoom_blur_is_a_mean_of_magnified_images(severity: int) -> None:
    factors = 1 + 0.01 * np.arange((7, 12, 16, 21, 26)[severity - 1])
    assert np.arange(1, c.PARAMETERS["zoom_blur"][severity - 1], 0.01) == pytest.approx(factors)
    flat = np.full((32, 32, 3), 0.25)
    np.testing.assert_allclose(
        c.zoom_blur(flat, c.PARAMETERS["zoom_blur"][severity - 1], np.random.default_rng(0)), 0.25
    )
    ramp = np.broadcast_to(np.linspace(0, 1, 32)[:, None, None], (32, 32, 3))
    steepness = np.ptp(c._magnified(ramp, 1.25)[..., 0])
    assert steepness == pytest.approx(1 / 1.25, abs=0.04)


@pytest.mark.parametrize(("severity", "kept"), list(zip(SEVERITIES, (0.95, 0.9, 0.9, 0.85, 0.8), strict=True)))
def test_snow_lies_over_a_paler_image(severity: int, kept: float) -> None:
    image, parameters = picture() / 255, c.PARAMETERS["snow"][severity - 1]
    none = c.snow(image, (*parameters[:3], 9.0, *parameters[4:]), np.random.default_rng(0))
    light = 0.299 * image[..., :1] + 0.587 * image[..., 1:2] + 0.114 * image[..., 2:]
    np.testing.assert_allclose(none, kept * image + (1 - kept) * np.maximum(image, 1.5 * light + 0.5))
    flakes = c.snow(image, parameters, np.random.default_rng(0)) - none
    assert flakes.min() >= -1e-12
    assert 0.003 < flakes.mean() < 0.5
    np.testing.assert_allclose(flakes, np.rot90(flakes, 2), atol=1e-12)  # laid on twice


def test_frost_is_a_weighted_sum_with_a_part_of_a_picture() -> None:
    pytest.importorskip("imagecorruptions")
    published = ((1, 0.2), (1, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45))
    for severity, (of_image, of_frost) in zip(SEVERITIES, published, strict=True):
        dark, light = (
            c.frost(np.full((32, 32, 3), value), c.PARAMETERS["frost"][severity - 1], np.random.default_rng(severity))
            for value in (0.0, 0.5)
        )
        np.testing.assert_allclose(light - dark, 0.5 * of_image)
        frost = dark / of_frost
        assert 0 <= frost.min() < frost.max() <= 1
        assert any(
            np.allclose(frost, found[top : top + 32, left : left + 32])
            for found in c._pictures()
            for top in range(found.shape[0] - 32)
            for left in range(found.shape[1] - 32)
            if np.allclose(frost[0, 0], found[top, left])
        )


def test_fog_is_the_diamond_square_algorithm() -> None:
    image, published = picture() / 255, ((0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75))
    for severity, (strength, decay) in zip(SEVERITIES, published, strict=True):
        noise = np.random.default_rng(severity).random((1, 32, 32))[0]
        fog = diamond_square(noise, decay**2)[:, :, None]
        expected = (image + strength * fog) * image.max() / (image.max() + strength)
        found = c.fog(image, c.PARAMETERS["fog"][severity - 1], np.random.default_rng(severity))
        np.testing.assert_allclose(found, expected, atol=1e-12)


@pytest.mark.parametrize("severity", SEVERITIES)
def test_contrast_brightness_and_saturation_by_hand(severity: int) -> None:
    pytest.importorskip("skimage")
    x, i = picture() / 255, severity - 1
    factor, more = (0.75, 0.5, 0.4, 0.3, 0.15)[i], (0.05, 0.1, 0.15, 0.2, 0.3)[i]
    scale, plus = ((0.3, 0), (0.1, 0), (1.5, 0), (2, 0.1), (2.5, 0.2))[i]
    flat = [tuple(colorsys.rgb_to_hsv(*pixel)) for pixel in x.reshape(-1, 3)]
    bright = [colorsys.hsv_to_rgb(h, s, min(v + more, 1)) for h, s, v in flat]
    vivid = [colorsys.hsv_to_rgb(h, min(s * scale + plus, 1), v) for h, s, v in flat]
    mean = x.mean((0, 1))
    for name, expected in (
        ("contrast", (x - mean) * factor + mean),
        ("brightness", np.reshape(bright, x.shape)),
        ("saturate", np.reshape(vivid, x.shape)),
    ):
        found = c.CORRUPTIONS[name](x, c.PARAMETERS[name][i], np.random.default_rng(0))
        np.testing.assert_allclose(found.clip(0, 1), expected.clip(0, 1), atol=1e-9, err_msg=name)


@pytest.mark.parametrize("severity", SEVERITIES)
def test_jpeg_and_pixels_are_pillow_s(severity: int) -> None:
    image = picture()
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=(80, 65, 58, 50, 40)[severity - 1])
    np.testing.assert_array_equal(made("jpeg_compression", severity, image), np.asarray(Image.open(buffer)))
    side = (30, 28, 27, 24, 20)[severity - 1]
    small = Image.fromarray(image).resize((side, side), Image.Resampling.BOX)
    np.testing.assert_array_equal(
        made("pixelate", severity, image), np.asarray(small.resize((32, 32), Image.Resampling.BOX))
    )


def test_elastic_shifts_corners_and_pixels() -> None:
    pytest.importorskip("cv2")
    published = ((0, 0, 2.56), (1.6, 6.4, 2.24), (2.56, 1.92, 1.92), (3.2, 1.28, 1.6), (3.2, 0.96, 0.96))
    for severity, expected in zip(SEVERITIES, published, strict=True):
        assert [32 * share for share in c.PARAMETERS["elastic_transform"][severity - 1]] == pytest.approx(expected)
    image = picture() / 255
    still = c.elastic_transform(image, (0, 0, 0), np.random.default_rng(0))
    np.testing.assert_allclose(still, image, atol=1e-5)
    ramp = np.broadcast_to(np.arange(32)[:, None, None] / 31, (32, 32, 3))
    flow = 31 * (c.elastic_transform(ramp, (2 / 32, 0, 0), np.random.default_rng(0)) - ramp)
    assert 1.9 < np.abs(flow[3:-3]).max() <= 2.001  # unblurred, by up to two pixels
    assert np.abs(flow[3:-3]).mean() == pytest.approx(1.0, abs=0.08)


def test_spatter_is_water_then_mud() -> None:
    pytest.importorskip("cv2")
    white: Any = np.full((32, 32, 3), 255, np.uint8)
    for severity in (1, 2, 3):
        np.testing.assert_array_equal(made("spatter", severity, white), white)  # light is added
        added = made("spatter", severity, grey()).astype(float) - 128
        assert added.min() >= 0
        bright = added[added[..., 1] > 20]
        np.testing.assert_allclose(bright[:, 0] / bright[:, 1], 175 / 238, atol=0.06)  # pale turquoise
    for severity in (4, 5):
        drops = made("spatter", severity, white, 2)
        deepest = drops.reshape(-1, 3)[drops.sum(-1).argmin()].astype(float)
        assert deepest[0] > deepest[1] > deepest[2]  # brown
        assert np.unique(drops[..., 0]).max() == 255

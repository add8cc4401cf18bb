"""Each distortion against something computed another way."""

import io

import numpy as np
import pytest
import torch
from PIL import Image
from reference.distortion_reference import best_corner, diamond_square, luminance_blocks
from torch import Tensor

from contraverse.attacks.distortions import (
    Distortion,
    Drawn,
    jpeg_decode,
    jpeg_encode,
    steepest_l1,
)
from contraverse.attacks.weather import _streaks, plasma
from contraverse.errors import UserError
from contraverse.evaluation.images.unforeseen import UNFORESEEN

NONE = torch.empty(2, 0)


def bytes_of(rows: int = 2, height: int = 16, width: int = 32, seed: int = 0) -> Tensor:
    """Smooth random colours, (B, 3, H, W) in [0, 255]."""
    random = torch.Generator().manual_seed(seed)
    coarse = torch.randint(0, 256, (rows, 3, 4, 4), generator=random).float()
    return torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic").clamp(0, 255).round()


def drawn_for(distortion: Distortion, pixels: Tensor, epsilon: float) -> Drawn:
    random = torch.Generator().manual_seed(3)
    each = [distortion.draw(image, epsilon, random) for image in pixels]
    return Drawn(torch.stack([one.parameters for one in each]), torch.stack([one.fixed for one in each]))


def test_luminance_is_the_cosine_transform_of_each_block() -> None:
    pixels = bytes_of()
    for image, blocks in zip(pixels, jpeg_encode(pixels)[0], strict=True):
        expected = luminance_blocks(image.permute(1, 2, 0).double().numpy())
        np.testing.assert_allclose(blocks.numpy(), expected, atol=2e-4)


def test_nothing_is_lost_without_noise_but_the_colours_between_four_pixels() -> None:
    grey = bytes_of()[:, :1].expand(-1, 3, -1, -1)
    torch.testing.assert_close(jpeg_decode(jpeg_encode(grey), grey.shape[2:]), grey, atol=2e-2, rtol=0)
    blocks = bytes_of(height=8, width=16).repeat_interleave(2, 2).repeat_interleave(2, 3)
    torch.testing.assert_close(jpeg_decode(jpeg_encode(blocks), blocks.shape[2:]), blocks, atol=2e-2, rtol=0)


def test_rounded_it_is_pillow_s_jpeg_of_quality_50() -> None:
    grey = bytes_of(1)[:, :1].expand(-1, 3, -1, -1)
    decoded = jpeg_decode([part.round() for part in jpeg_encode(grey)], grey.shape[2:]).clamp(0, 255)
    buffer = io.BytesIO()
    Image.fromarray(grey[0].permute(1, 2, 0).byte().numpy()).save(buffer, "JPEG", quality=50, subsampling=2)
    theirs = np.asarray(Image.open(buffer)).astype(float)
    assert np.abs(decoded[0].permute(1, 2, 0).numpy() - theirs).max() <= 1.5
    assert np.abs(grey[0].permute(1, 2, 0).numpy() - theirs).max() > 4  # so that the rounding is what agrees


def test_rounding_is_a_perturbation_of_size_one() -> None:
    pixels, jpeg = bytes_of() / 255, UNFORESEEN["jpeg_linf"]
    exact = [part.flatten(1) for part in jpeg_encode(255 * pixels)]
    rounding = torch.cat([2 * (part.round() - part) for part in exact], 1)
    assert rounding.abs().max() <= 1
    rounded = [part.round() for part in jpeg_encode(255 * pixels)]
    expected = (jpeg_decode(rounded, pixels.shape[2:]) / 255).clamp(0, 1)
    torch.testing.assert_close(jpeg.perturb(pixels, Drawn(rounding, NONE), 1.0), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("epsilon", [0.5, 3.0, 100.0])
def test_the_steepest_point_of_the_l1_ball_is_the_linear_programme_s(epsilon: float) -> None:
    random = torch.Generator().manual_seed(1)
    grad = torch.randn(4, 2, 5, generator=random)
    grad[0, 0] = 0
    down, up = torch.rand(2, 4, 2, 5, generator=random).unbind()
    found = steepest_l1(grad, down, up, epsilon)
    assert (found <= up).all()
    assert (found >= -down).all()
    assert (found.abs().flatten(1).sum(1) <= epsilon * (1 + 1e-5)).all()
    for row in range(4):
        best = best_corner(*(t[row].flatten().double().numpy() for t in (grad, down, up)), epsilon)  # type: ignore[arg-type, misc]
        assert (grad[row] * found[row]).sum().item() == pytest.approx(best, rel=1e-5)


def test_no_flow_moves_nothing_and_a_flow_of_one_pixel_moves_one_pixel() -> None:
    pixels, elastic = bytes_of(height=32) / 255, UNFORESEEN["elastic"]
    flow = torch.zeros(2, 2, 32, 32)
    torch.testing.assert_close(elastic.perturb(pixels, Drawn(flow, NONE), 1.0), pixels, atol=1e-5, rtol=0)
    flow[:, 0] = 32 / 31
    moved = elastic.perturb(pixels, Drawn(flow, NONE), 1.0)
    torch.testing.assert_close(moved[..., :-1], pixels[..., 1:], atol=1e-4, rtol=0)
    flow[:, 0], flow[:, 1] = 0, -32 / 31
    moved = elastic.perturb(pixels, Drawn(flow, NONE), 1.0)
    torch.testing.assert_close(moved[:, :, 1:], pixels[:, :, :-1], atol=1e-4, rtol=0)


def test_fog_is_the_diamond_square_algorithm() -> None:
    random = torch.rand(2, 16, 16, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    for found, given in zip(plasma(random), random, strict=True):
        np.testing.assert_allclose(found.numpy(), diamond_square(given.numpy()), atol=1e-12)


def test_weather_is_laid_over_the_image_as_its_formula_says() -> None:
    pixels = bytes_of(height=32) / 255
    for name in ("fog", "snow", "gabor"):
        distortion = UNFORESEEN[name]
        drawn = drawn_for(distortion, pixels, 0.0)
        none = distortion.perturb(pixels, drawn, 0.0)
        if name == "fog":  # as bright as its brightest value, channel by channel
            expected = pixels / pixels.amax((2, 3), keepdim=True)
        elif name == "snow":
            grey = (pixels * torch.tensor([0.2126, 0.7152, 0.0722])[:, None, None]).sum(1, keepdim=True)
            expected = 0.75 * pixels + 0.25 * torch.maximum(pixels, 1.5 * grey + 0.5)
            more = distortion.perturb(pixels, drawn, 0.5)
            assert (more >= none.clamp(0, 1)).all()
            assert (more > none + 0.01).any()
        else:
            expected = pixels
            away = (distortion.perturb(pixels, drawn, 25.0) - pixels).abs().amax((1, 2, 3))
            assert (away <= 25 / 255 + 1e-6).all()
            assert (away > 20 / 255).all()
        torch.testing.assert_close(none, expected.clamp(0, 1), atol=1e-5, rtol=0)


def test_snow_is_a_streak_through_each_flake() -> None:
    """Level with the horizontal (angle 0) the streak of a flake is its row of pixels, six to each side."""
    pixels, snow = torch.zeros(1, 3, 32, 32), UNFORESEEN["snow"]
    flakes = torch.zeros(1, 7, 8, 8)
    flakes[0, 2, 3, 4] = 0.9
    offsets = torch.zeros(7, 2, dtype=torch.long)
    offsets[2] = torch.tensor([1, 3])
    fixed = _streaks(6, 3, torch.zeros(7), offsets)[None]
    expected = torch.full((32, 32), 0.125)
    expected[12 + 1, 16 + 3 - 6 : 16 + 3 + 7] += 0.5 * 0.9**4
    found = snow.perturb(pixels, Drawn(flakes, fixed), 0.5)
    torch.testing.assert_close(found[0], expected.expand(3, -1, -1))
    across = snow.perturb(pixels, Drawn(flakes, _streaks(6, 3, torch.full((7,), torch.pi / 2), offsets)[None]), 0.5)
    assert across[0, 0, 12 + 1 - 6 : 12 + 1 + 7, 16 + 3].min() > 0.4
    assert across[0, 0, :, 16 + 2].max() < 0.13


@pytest.mark.parametrize("name", UNFORESEEN)
def test_parameters_stay_in_their_set_and_images_in_the_box(name: str) -> None:
    distortion, pixels = UNFORESEEN[name], bytes_of(height=32) / 255
    epsilon, random = {"l2": 300.0, "l1": 900.0, "jpeg_l1": 40.0}.get(name, 0.7), torch.Generator().manual_seed(4)
    drawn = drawn_for(distortion, pixels, epsilon)
    assert drawn.parameters.flatten(1).unique(dim=0).shape[0] == 2
    for step in range(6):
        flat = drawn.parameters.flatten(1)
        size = {"l2": flat.norm(dim=1), "l1": flat.abs().sum(1), "jpeg_l1": flat.abs().sum(1)}.get(
            name, flat.abs().amax(1)
        )
        assert (size <= (1.0 if name in ("fog", "snow", "gabor") else epsilon) * (1 + 1e-5)).all(), step
        if name == "snow" and step:
            assert (drawn.parameters.mean((2, 3)) <= 0.2 + 1e-6).all()
        if name == "gabor":
            assert 0.02 < (drawn.parameters != 0).float().mean() < 0.15
        image = distortion.perturb(pixels, drawn, epsilon)
        assert image.shape == pixels.shape
        assert image.min() >= 0
        assert image.max() <= 1
        grad = torch.randn(drawn.parameters.shape, generator=random)
        moved = distortion.climb(pixels, drawn, grad, epsilon, step, 6)
        assert not torch.equal(moved, drawn.parameters)
        drawn = drawn._replace(parameters=moved)


def test_an_image_of_another_size_is_refused() -> None:
    random = torch.Generator()
    with pytest.raises(UserError, match="blocks of 16"):
        UNFORESEEN["jpeg_l1"].draw(torch.zeros(3, 16, 24), 1.0, random)
    with pytest.raises(UserError, match="more than 12"):
        UNFORESEEN["elastic"].draw(torch.zeros(3, 8, 8), 1.0, random)

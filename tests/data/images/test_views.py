import random
from collections import Counter
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from reference import pil_views
from scipy import stats
from torch import Tensor

from contraverse.data.images import CropFlip, OneView, SimCLRAugment, TwoViews
from contraverse.data.images.transforms import (
    color_jitter,
    crop,
    draw_crops,
    draw_jitter,
    gaussian_blur,
    gray,
    plan_jitter,
)
from contraverse.errors import UserError


def images(count: int, side: int = 16) -> Tensor:
    """Smooth and rough images whose values are whole multiples of 1/255."""
    smooth = torch.nn.functional.interpolate(torch.rand(count, 3, 4, 4), size=side, mode="bilinear")
    return ((smooth + 0.2 * torch.rand(count, 3, side, side)).clamp(0, 1) * 255).round() / 255


def jitter_all(x: Tensor, spread: float, turn: float) -> Tensor:
    return color_jitter(x, *draw_jitter(torch.ones(len(x), dtype=torch.bool), spread, turn))


@pytest.mark.parametrize("resample", ["bilinear", "bicubic"])
@pytest.mark.parametrize(("side", "size"), [(16, 16), (13, 29), (40, 12)])
def test_a_crop_is_what_pillow_makes_of_it(resample: Any, side: int, size: int) -> None:
    # Within [.3, .7] nothing overshoots: Pillow rounds to bytes, and clips, after each of its two passes.
    x, boxes = ((0.3 + 0.4 * images(24, side)) * 255).round() / 255, draw_crops(24, (side, side), (0.1, 1.0))
    ours = crop(x, boxes, size, torch.zeros(24, dtype=torch.bool), resample).clamp(0, 1)
    for i, box in enumerate(boxes.tolist()):
        theirs = pil_views.crop(x[i].double().numpy(), tuple(box), size, resample)
        assert np.abs(ours[i].numpy() - theirs).max() < 2.1 / 255
        assert np.abs(ours[i].numpy() - theirs).mean() < 0.5 / 255


def test_a_crop_is_mirrored_where_it_says_so() -> None:
    x, boxes = images(2), draw_crops(2, (16, 16), (0.1, 1.0))
    plain = crop(x, boxes, None, torch.tensor([False, False]), "bicubic")
    one = crop(x, boxes, None, torch.tensor([False, True]), "bicubic")
    assert torch.equal(one[0], plain[0])
    torch.testing.assert_close(one[1], plain[1].flip(2))


def test_crops_are_drawn_as_defined() -> None:
    boxes, draw = draw_crops(20_000, (32, 32), (0.1, 1.0)).double(), random.Random(0)
    expected = torch.tensor([pil_views.draw_crop(draw, 32, 32, 0.1) for _ in range(20_000)]).double()
    for ours, theirs in zip(boxes.unbind(1), expected.unbind(1), strict=True):
        assert stats.ks_2samp(ours, theirs).pvalue > 1e-3
    assert stats.ks_2samp(boxes[:, 2] * boxes[:, 3], expected[:, 2] * expected[:, 3]).pvalue > 1e-3
    assert stats.ks_2samp(boxes[:, 2] / boxes[:, 3], expected[:, 2] / expected[:, 3]).pvalue > 1e-3
    assert (boxes[:, :2] >= 0).all()
    assert (boxes[:, :2] + boxes[:, 2:] <= 32).all()


def test_a_crop_that_never_fits_is_the_whole_image() -> None:
    assert (draw_crops(50, (8, 40), (1.0, 1.0)) == torch.tensor([0, 0, 8, 40])).all()


@pytest.mark.parametrize("step", [0, 1, 2])
def test_enhancers_are_pillows(step: int) -> None:
    x, factors = images(12), torch.linspace(0.6, 1.4, 12)
    all_factors = torch.ones(12, 3)  # 1 changes nothing
    all_factors[:, step] = factors
    order = torch.rand(12, 4).argsort(1)
    ours = color_jitter(x, *plan_jitter(torch.arange(12), all_factors, torch.zeros(12), order))
    for i in range(12):
        theirs = pil_views.enhance(x[i].double().numpy(), step, float(factors[i]))
        assert np.abs(ours[i].numpy() - theirs).max() < 2.1 / 255  # Pillow's grey values are bytes


def test_each_image_has_factors_and_an_order_of_its_own() -> None:
    x = images(40, 5)
    torch.manual_seed(3)
    factors, shift = torch.empty(40, 3).uniform_(0.6, 1.4), torch.empty(40).uniform_(-0.1, 0.1)
    order = torch.rand(40, 4).argsort(1)
    torch.manual_seed(3)
    ours = jitter_all(x, 0.4, 0.1)
    assert len({tuple(row) for row in order.tolist()}) > 12
    for i in range(40):
        theirs = pil_views.jitter(x[i].double().numpy(), tuple(factors[i].tolist()), float(shift[i]), order[i].tolist())
        np.testing.assert_allclose(ours[i].numpy(), theirs, atol=2e-6)


def test_hues_of_grey_black_and_pure_colors() -> None:
    x = torch.tensor([[0.0, 0, 0], [1, 1, 1], [0.5, 0.5, 0.5], [1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0], [0, 1, 1]])
    x = x[:, :, None, None]
    torch.manual_seed(0)
    torch.empty(len(x), 3).uniform_(1, 1)
    shift = torch.empty(len(x)).uniform_(-0.5, 0.5)
    torch.manual_seed(0)
    ours = jitter_all(x, 0.0, 0.5)
    for i in range(len(x)):
        np.testing.assert_allclose(ours[i], pil_views.turn_hue(x[i].double().numpy(), float(shift[i])), atol=1e-6)


@pytest.mark.parametrize(("strength", "spread", "share"), [(1.0, 0.4, 0.8), (0.5, 0.2, 0.4)])
def test_brightness_and_its_rate_are_as_defined(strength: float, spread: float, share: float) -> None:
    # On an image of one grey value nothing but the brightness changes anything.
    out = SimCLRAugment(strength=strength)(torch.full((4000, 3, 4, 4), 0.5))[:, 0, 0, 0] / 0.5
    changed = out[(out - 1).abs() > 1e-5].double()
    assert len(changed) / 4000 == pytest.approx(share, abs=0.03)
    assert stats.kstest(changed, "uniform", args=(1 - spread, 2 * spread)).pvalue > 1e-3


def test_hue_saturation_and_contrast_are_uniform() -> None:
    red = torch.tensor([1.0, 0, 0])[None, :, None, None].expand(3000, 3, 2, 2)
    out = jitter_all(red, 0.0, 0.1)[:, :, 0, 0].double()
    turned = (out[:, 1] - out[:, 2]) / 6
    assert stats.kstest(turned, "uniform", args=(-0.1, 0.2)).pvalue > 1e-3
    halves = torch.tensor([0.4, 0.6])[None, None, None].expand(3000, 3, 1, 2)
    out = jitter_all(halves, 0.4, 0.0)[:, 0, 0].double()
    brightness, contrast = out.mean(1) / 0.5, (out[:, 1] - out[:, 0]) / out.mean(1) / 0.4
    assert stats.kstest(brightness, "uniform", args=(0.6, 0.8)).pvalue > 1e-3
    assert stats.kstest(contrast, "uniform", args=(0.6, 0.8)).pvalue > 1e-3


@pytest.mark.parametrize(("strength", "share"), [(1.0, 0.2), (0.5, 0.1), (0.0, 0.0)])
def test_the_rate_of_gray(strength: float, share: float) -> None:
    x = torch.tensor([0.9, 0.5, 0.2])[None, :, None, None].expand(3000, 3, 2, 2)
    out = SimCLRAugment(strength=strength)(x)
    assert ((out.amax(1) - out.amin(1)).amax((1, 2)) < 1e-6).double().mean() == pytest.approx(share, abs=0.025)


def test_gray_is_pillows() -> None:
    x = images(3)
    for one, theirs in zip(gray(x), x, strict=True):
        expected = np.asarray(pil_views.to_image(theirs.double().numpy()).convert("L")) / 255
        assert np.abs(one[0].numpy() - expected).max() < 1.1 / 255


def test_blur_is_the_gaussian_of_its_sigma() -> None:
    x, sigma = torch.zeros(3, 3, 9, 9), torch.tensor([0.1, 0.7, 2.0])
    x[:, :, 4, 4] = 1
    out = gaussian_blur(x, sigma)
    for i, s in enumerate(sigma.tolist()):
        line = np.exp(-np.array([1, 0, 1]) / (2 * s * s))
        expected = np.outer(line / line.sum(), line / line.sum())
        np.testing.assert_allclose(out[i, 0, 3:6, 3:6], expected, atol=1e-6)
        assert out[i].sum() == pytest.approx(3, abs=1e-5)
    torch.testing.assert_close(gaussian_blur(torch.full((1, 3, 40, 9), 0.3), sigma[2:]), torch.full((1, 3, 40, 9), 0.3))
    assert (gaussian_blur(torch.eye(40).expand(1, 3, 40, 40), sigma[2:])[0, 0] > 0).sum(1).max() == 9  # 5 wide, twice


def test_the_rate_of_blur() -> None:
    x = torch.zeros(2000, 3, 4, 4)
    x[:, :, ::2, ::2] = 1
    plain = SimCLRAugment(strength=0, flip=0)(x)
    for strength, share in ((0.0, 0.0), (1.0, 0.5)):
        torch.manual_seed(1)
        without = SimCLRAugment(strength=strength, flip=0)(x)
        torch.manual_seed(1)
        blurred = SimCLRAugment(strength=strength, flip=0, blur=0.5)(x)
        changed = (blurred - without).abs().amax((1, 2, 3)) > 0
        assert changed.double().mean() == pytest.approx(share, abs=0.05)
    assert torch.equal(plain, x)


def test_at_strength_0_a_view_is_the_image_or_its_mirror_image() -> None:
    for x in (images(64), images(64, 11)):
        assert torch.equal(SimCLRAugment(strength=0, flip=0, blur=1)(x), x)
        assert torch.equal(SimCLRAugment(strength=0, flip=1)(x), x.flip(3))
        half = SimCLRAugment(strength=0)(x)
        mirrored = [torch.equal(a, b.flip(2)) for a, b in zip(half, x, strict=True)]
        assert 15 < sum(mirrored) < 49
        assert all(torch.equal(a, b) for a, b, m in zip(half, x, mirrored, strict=True) if not m)


def test_strength_may_be_set_between_batches() -> None:
    x, augment = images(200), SimCLRAugment(flip=0)
    apart = []
    for augment.strength in (1.0, 0.6, 0.2, 0.0):
        apart.append(float((augment(x) - x).abs().mean()))
    assert all(more > less for more, less in pairwise(apart))
    assert apart[-1] == 0


@pytest.mark.parametrize("augment", [SimCLRAugment(blur=0.5), SimCLRAugment(size=9, resample="bilinear"), CropFlip()])
def test_what_holds_for_every_view(augment: Any) -> None:
    x = (torch.rand(32, 3, 12, 12) > 0.5).float()  # black and white: bicubic overshoots
    before, size = x.clone(), getattr(augment, "size", None) or 12
    torch.manual_seed(5)
    state = torch.get_rng_state()
    one = augment(x.requires_grad_())
    assert one.dtype == torch.float32
    assert one.shape == (32, 3, size, size)
    assert not one.requires_grad
    assert one.min() >= 0
    assert one.max() <= 1
    assert torch.equal(x, before)
    following = augment(x)
    assert not torch.equal(one, following)
    torch.set_rng_state(state)
    assert torch.equal(augment(x), one), "the generator's state alone decides"
    torch.set_rng_state(state)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(augment(x), one)
    # What is drawn for an image and made of it does not depend on its neighbours.
    other = torch.cat([x[:1], torch.rand(31, 3, 12, 12)])
    torch.set_rng_state(state)
    torch.testing.assert_close(augment(other)[0], one[0])
    same = augment(x[:1].expand(32, -1, -1, -1))
    assert len({view.numpy().tobytes() for view in same}) > 25


def test_the_light_crop_is_a_window_of_the_padded_image() -> None:
    x = images(1, 6).clamp(min=0.01)
    out = CropFlip(padding=2)(x.expand(5000, -1, -1, -1))
    padded = torch.zeros(3, 10, 10)
    padded[:, 2:8, 2:8] = x[0]
    windows = {}
    for top in range(5):
        for left in range(5):
            window = padded[:, top : top + 6, left : left + 6]
            windows[window.contiguous().numpy().tobytes()] = (top, left, False)
            windows[window.flip(2).contiguous().numpy().tobytes()] = (top, left, True)
    counted = Counter(windows[view.numpy().tobytes()] for view in out)
    assert len(counted) == 50
    assert stats.chisquare(list(counted.values())).pvalue > 1e-3
    never = CropFlip(padding=0, flip=0)(x)
    assert torch.equal(never, x)


def test_one_and_two_views_leave_the_rest_of_a_batch() -> None:
    batch = {"pixel_values": images(8), "labels": torch.arange(8), "index": torch.arange(8) + 3}
    kept = dict(batch)
    before = batch["pixel_values"].clone()
    one, two = OneView(SimCLRAugment())(batch), TwoViews(SimCLRAugment())(batch)
    assert set(one) == set(batch)
    assert set(two) == {*batch, "positive"}
    assert set(two["positive"]) == {"pixel_values"}
    assert batch == kept
    assert torch.equal(batch["pixel_values"], before)
    for made in (one, two):
        assert made["labels"] is batch["labels"]
        assert made["index"] is batch["index"]
        assert not torch.equal(made["pixel_values"], before)
    assert all(not torch.equal(a, b) for a, b in zip(two["pixel_values"], two["positive"]["pixel_values"], strict=True))


@pytest.mark.gpu
@pytest.mark.parametrize("augment", [SimCLRAugment(blur=0.5), CropFlip()])
def test_views_are_the_same_on_a_gpu(augment: Any) -> None:
    x = images(64, 32)
    torch.manual_seed(5)
    here = augment(x)
    torch.manual_seed(5)
    there = augment(x.cuda())
    assert there.is_cuda
    torch.testing.assert_close(there.cpu(), here, atol=2e-3, rtol=0)  # TF32 has ten bits


@pytest.mark.parametrize(
    "pixels", [torch.zeros(2, 3, 4, 4, dtype=torch.uint8), torch.zeros(2, 1, 4, 4), torch.zeros(3, 4, 4)]
)
def test_what_is_no_batch_of_pixels_is_refused(pixels: Tensor) -> None:
    for augment in (SimCLRAugment(), CropFlip()):
        with pytest.raises(UserError, match="pixels"):
            augment(pixels)


@pytest.mark.parametrize(
    "settings", [{"strength": 1.5}, {"strength": -0.1}, {"flip": 2}, {"blur": -1}, {"size": 0}, {"resample": "area"}]
)
def test_settings_have_ranges(settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        SimCLRAugment(**settings)


def test_the_smallest_crop_is_a_setting() -> None:
    """Of the image's area at full strength; ACL's tenth draws the views that it always drew."""
    seen: list[tuple[float, float]] = []

    def draw(count: int, shape: tuple[int, int], scale: tuple[float, float]) -> Tensor:
        seen.append(scale)
        return draw_crops(count, shape, scale)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("contraverse.data.images.transforms.draw_crops", draw)
        for smallest, strength in ((0.1, 1.0), (0.08, 1.0), (0.08, 0.5), (1.0, 1.0)):
            SimCLRAugment(smallest_crop=smallest, strength=strength)(torch.rand(2, 3, 8, 8))
    assert seen == [(pytest.approx(low), 1.0) for low in (0.1, 0.08, 0.54, 1.0)]
    with pytest.raises(ValueError, match="smallest_crop"):
        SimCLRAugment(smallest_crop=0.0)

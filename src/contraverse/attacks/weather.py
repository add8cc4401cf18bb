"""Fog, snow and Gabor noise of Kang et al. (2019); their sizes are calibrated for ImageNet-100 only, not for CIFAR-10.

Parameters lie in [0, 1], fog's and snow's, or [-1, 1], Gabor's; epsilon says how strongly what they draw is laid over
the image. A step is 1 / sqrt(steps) of that range's half or whole.
"""

import math

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from contraverse.attacks.distortions import Distortion, Drawn

LUMINANCE = (0.2126, 0.7152, 0.0722)


class Fog(Distortion):
    """Fog from the diamond-square algorithm, whose random numbers are the parameters; it roughens half at each level.

    ``x' = (x + epsilon f) / (max(x) + epsilon)`` with the fog f in [0, 1], in bytes, the maximum of each channel.
    """

    name = "fog"

    def draw(self, image: Tensor, epsilon: float, random: Generator) -> Drawn:
        side = 1 << (max(image.shape[1:]) - 1).bit_length()
        return Drawn(torch.rand(side, side, generator=random), torch.empty(0))

    def perturb(self, pixels: Tensor, drawn: Drawn, epsilon: float) -> Tensor:
        height, width = pixels.shape[2:]
        fog = plasma(drawn.parameters)[:, None, :height, :width]
        brightest = 255 * pixels.amax((2, 3), keepdim=True)
        return ((255 * pixels + epsilon * fog) / (brightest + epsilon)).clamp(0, 1)

    def climb(self, pixels: Tensor, drawn: Drawn, grad: Tensor, epsilon: float, step: int, steps: int) -> Tensor:
        return (drawn.parameters + grad.sign() / math.sqrt(steps)).clamp(0, 1)


def plasma(random: Tensor, smoother: float = 2.0) -> Tensor:
    """A height map (B, S, S) in [0, 1] on a torus, by diamonds and squares, S a power of two.

    ``random`` (B, S, S) in [0, 1]: what each point adds to the mean of its four neighbours, from -1 to 1, divided by
    ``smoother`` once more at each finer level. The first point is 0.
    """
    noise, size = 2 * random - 1, random.shape[1]
    heights, wide, amount = torch.zeros_like(random), size, 1.0
    while wide >= 2:
        half = wide // 2
        corners = heights[:, ::wide, ::wide]
        right, below = corners.roll(-1, 2), corners.roll(-1, 1)
        centres = (corners + right + below + below.roll(-1, 2)) / 4 + amount * noise[:, half::wide, half::wide]
        # Each edge lies between two corners and two centres.
        top = (corners + right + centres + centres.roll(1, 1)) / 4 + amount * noise[:, ::wide, half::wide]
        left = (corners + below + centres + centres.roll(1, 2)) / 4 + amount * noise[:, half::wide, ::wide]
        rows = torch.stack([torch.stack([corners, top], -1).flatten(2), torch.stack([left, centres], -1).flatten(2)], 2)
        finer = rows.flatten(1, 2)
        heights = torch.zeros_like(random)
        heights[:, ::half, ::half] = finer
        wide, amount = half, amount / smoother
    low, high = heights.amin((1, 2), keepdim=True), heights.amax((1, 2), keepdim=True)
    return (heights - low) / (high - low).clamp(min=1e-12)


class Snow(Distortion):
    """Streaks of snow from seven grids of flakes, whose brightness to the power 4 is laid over a paler image.

    The streaks of an image fall the same way, at an angle and an offset that are drawn for each grid. The mean of the
    parameters over a neighbourhood of 8 x 8 flakes, or over all where there are fewer, is kept at 0.2 or below.
    """

    name = "snow"
    grids, every, reach, budget, pale = 7, 4, 6, 0.2, 0.25

    def draw(self, image: Tensor, epsilon: float, random: Generator) -> Drawn:
        height, width = (math.ceil(side / self.every) for side in image.shape[1:])
        flakes = torch.exp(-torch.rand(self.grids, height, width, generator=random) / self.budget)
        angles = math.pi * (0.1 + 0.3 * torch.rand(self.grids, generator=random))
        if torch.rand((), generator=random) < 0.5:
            angles = math.pi - angles
        offsets = torch.randint(0, self.every, (self.grids, 2), generator=random)
        return Drawn(flakes, _streaks(self.reach, self.every - 1, angles, offsets))

    def perturb(self, pixels: Tensor, drawn: Drawn, epsilon: float) -> Tensor:
        rows, _, height, width = pixels.shape
        flakes, gap = drawn.parameters.flatten(0, 1) ** 4, self.every - 1
        sky = F.pad(flakes[:, :, None, :, None], (0, gap, 0, 0, 0, gap)).flatten(3, 4).flatten(1, 2)
        sky = sky[:, :height, :width]
        # A convolution turns its kernel round: flipped, a streak lies where its offset says.
        snow = F.conv2d(sky[None], drawn.fixed.flip(2, 3), padding=self.reach + gap, groups=rows)[0][:, None]
        grey = torch.einsum("i,bihw->bhw", torch.tensor(LUMINANCE, device=pixels.device), pixels)[:, None]
        paler = (1 - self.pale) * pixels + self.pale * torch.maximum(pixels, 1.5 * grey + 0.5)
        return (paler + epsilon * snow).clamp(0, 1)

    def climb(self, pixels: Tensor, drawn: Drawn, grad: Tensor, epsilon: float, step: int, steps: int) -> Tensor:
        flakes = (drawn.parameters + grad.sign() / math.sqrt(steps)).clamp(1e-9, 1)
        means = F.adaptive_avg_pool2d(flakes, (max(1, flakes.shape[2] // 8), max(1, flakes.shape[3] // 8)))
        shrink = self.budget / means.clamp(min=self.budget)
        return flakes * F.interpolate(shrink, flakes.shape[2:], mode="nearest-exact")


def _streaks(reach: int, furthest: int, angles: Tensor, offsets: Tensor) -> Tensor:
    """Soft lines of one pixel's width, (G, S, S) with S = 2 (reach + furthest) + 1.

    Each is ``2 reach + 1`` long, at its angle (G,) to the horizontal, about its offset (G, 2) from the middle, of at
    most ``furthest`` down and to the right.
    """
    at = torch.arange(-reach - furthest, reach + furthest + 1)
    down, right = at[:, None] - offsets[:, 0, None, None], at - offsets[:, 1, None, None]
    sine, cosine = angles.sin()[:, None, None], angles.cos()[:, None, None]
    across, along = down * cosine - right * sine, down * sine + right * cosine
    return (1 - across.abs()).clamp(min=0) * (along.abs() <= reach)


class Gabor(Distortion):
    """Gabor noise: at one pixel in 14 a kernel of a random wave, weighted by a parameter in [-1, 1].

    ``x' = x + epsilon g`` in bytes, where g is scaled to [-1, 1]; the authors' code whitens its spectrum besides.
    """

    name = "gabor"
    reach, one_in = 11, 14

    def draw(self, image: Tensor, epsilon: float, random: Generator) -> Drawn:
        height, width = image.shape[1:]
        there = torch.rand(height, width, generator=random) < 1 / self.one_in
        there[height // 2, width // 2] = True  # never none
        weights = (2 * torch.rand(height, width, generator=random) - 1) * there
        deviation, waves, angle = torch.rand(3, generator=random) * torch.tensor([0.3, 2.75, math.pi])
        at = torch.linspace(-0.5, 0.5, 2 * self.reach + 1)
        along = at[:, None] * torch.sin(angle) + at * torch.cos(angle)
        bell = torch.exp(-0.5 * (at[:, None] ** 2 + at**2) / (0.1 + deviation) ** 2)
        kernel = bell * torch.cos(2 * math.pi * (3 + waves) * along)
        fixed = torch.cat([kernel.flatten(), there.flatten().float()])
        return Drawn(weights, fixed)

    def perturb(self, pixels: Tensor, drawn: Drawn, epsilon: float) -> Tensor:
        rows, side = len(pixels), 2 * self.reach + 1
        kernel = drawn.fixed[:, : side**2].reshape(rows, 1, side, side)
        noise = F.conv2d(drawn.parameters[None], kernel, padding=self.reach, groups=rows)[0][:, None]
        noise = noise / noise.abs().amax((1, 2, 3), keepdim=True).clamp(min=1e-12)
        return (pixels + epsilon / 255 * noise).clamp(0, 1)

    def climb(self, pixels: Tensor, drawn: Drawn, grad: Tensor, epsilon: float, step: int, steps: int) -> Tensor:
        there = drawn.fixed[:, (2 * self.reach + 1) ** 2 :].reshape(drawn.parameters.shape)
        return (drawn.parameters + grad.sign() / math.sqrt(steps)).clamp(-1, 1) * there

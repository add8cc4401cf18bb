"""Distortions of Kang et al. (2019), "Testing Robustness Against Unforeseen Adversaries", as functions of parameters.

A distortion draws the parameters of an image at random, moves them along a gradient and keeps them in their set, and
turns an image and its parameters into a distorted image, differentiably. Sizes are in the paper's units, which are
those of bytes (0 to 255) for the norms of pixels. Written from the paper; where its authors' code decides what a
calibrated size means, it is followed, and the docstring says so.
"""

import math
from typing import ClassVar, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from contraverse.errors import UserError
from contraverse.functional import direction, project


class Drawn(NamedTuple):
    """Draws of a batch: ``parameters`` (B, ...), which gradient steps move, and ``fixed`` (B, ...), which stay."""

    parameters: Tensor
    fixed: Tensor


class Distortion:
    """One kind of distortion; parameters lie in [-epsilon, epsilon] here, and steps follow the gradient's sign."""

    name: ClassVar[str]

    def unfit(self, height: int, width: int) -> str | None:
        """Why images of this size cannot be distorted so; None where they can."""
        return None

    def draw(self, image: Tensor, epsilon: float, random: Generator) -> Drawn:
        """Parameters of one ``image`` (C, H, W), without a batch axis, uniform in their set unless a class says else.

        Raises:
            UserError: the image is of a size that the distortion cannot have.
        """
        raise NotImplementedError

    def perturb(self, pixels: Tensor, drawn: Drawn, epsilon: float) -> Tensor:
        """``pixels`` (B, C, H, W) in [0, 1], distorted, in [0, 1]."""
        raise NotImplementedError

    def climb(self, pixels: Tensor, drawn: Drawn, grad: Tensor, epsilon: float, step: int, steps: int) -> Tensor:
        """The parameters after step number ``step`` (from 0) of ``steps``; a step is epsilon / sqrt(steps) long."""
        moved = drawn.parameters + epsilon / math.sqrt(steps) * grad.sign()
        return moved.clamp(-epsilon, epsilon)


class Linf(Distortion):
    """Every byte by at most epsilon."""

    name = "linf"

    def draw(self, image: Tensor, epsilon: float, random: Generator) -> Drawn:
        return _without(epsilon * _signed(image.shape, random))

    def perturb(self, pixels: Tensor, drawn: Drawn, epsilon: float) -> Tensor:
        return (pixels + drawn.parameters / 255).clamp(0, 1)


class L2(Linf):
    """Bytes by at most epsilon in L2, drawn uniformly from the ball."""

    name = "l2"

    def draw(self, image: Tensor, epsilon: float, random: Generator) -> Drawn:
        noise = torch.randn(image.shape, generator=random)
        radius = torch.rand((), generator=random) ** (1 / image.numel())
        return _without(epsilon * radius * noise / noise.norm())

    def climb(self, pixels: Tensor, drawn: Drawn, grad: Tensor, epsilon: float, step: int, steps: int) -> Tensor:
        return project(drawn.parameters + epsilon / math.sqrt(steps) * direction(grad), epsilon)


class L1(Linf):
    """Bytes by at most epsilon in L1: Frank-Wolfe, as the paper; drawn uniformly from the ball."""

    name = "l1"

    def draw(self, image: Tensor, epsilon: float, random: Generator) -> Drawn:
        return _without(epsilon * _in_l1_ball(image.shape, random))

    def climb(self, pixels: Tensor, drawn: Drawn, grad: Tensor, epsilon: float, step: int, steps: int) -> Tensor:
        best = steepest_l1(grad, 255 * pixels, 255 - 255 * pixels, epsilon)
        return drawn.parameters + (best - drawn.parameters) / (step + 1)


class Jpeg(Distortion):
    """Noise on the coefficients that JPEG rounds, at quality 50 with colours at half resolution.

    In the authors' code, which the calibrated sizes come from, half of a parameter is added to a coefficient: the
    rounding by up to 1/2 that JPEG itself does has size 1. Linf by signs, L1 by Frank-Wolfe, each parameter in [-2, 2].
    """

    name = "jpeg_linf"
    norm: ClassVar[Literal["linf", "l1"]] = "linf"
    largest = 2.0

    def unfit(self, height: int, width: int) -> str | None:
        if not height % 16 and not width % 16:
            return None
        return f"JPEG works on blocks of 16 pixels, and the images are {height} x {width}"

    def draw(self, image: Tensor, epsilon: float, random: Generator) -> Drawn:
        _, height, width = image.shape
        if why := self.unfit(height, width):
            raise UserError(why)
        shape = (height * width * 3 // 2,)
        unit = _signed(shape, random) if self.norm == "linf" else _in_l1_ball(shape, random)
        return _without(epsilon * unit)

    def perturb(self, pixels: Tensor, drawn: Drawn, epsilon: float) -> Tensor:
        coefficients = jpeg_encode(255 * pixels)
        sizes = [part.shape[1:].numel() for part in coefficients]
        noise = [
            part.reshape(whole.shape)
            for part, whole in zip(drawn.parameters.split(sizes, 1), coefficients, strict=True)
        ]
        moved = [c + 0.5 * n for c, n in zip(coefficients, noise, strict=True)]
        return (jpeg_decode(moved, pixels.shape[2:]) / 255).clamp(0, 1)

    def climb(self, pixels: Tensor, drawn: Drawn, grad: Tensor, epsilon: float, step: int, steps: int) -> Tensor:
        if self.norm == "linf":
            return super().climb(pixels, drawn, grad, epsilon, step, steps)
        bound = torch.full_like(grad, self.largest)
        best = steepest_l1(grad, bound, bound, epsilon)
        return drawn.parameters + (best - drawn.parameters) / (step + 1)


class JpegL1(Jpeg):
    """See `Jpeg`."""

    name = "jpeg_l1"
    norm = "l1"


class Elastic(Distortion):
    """Every pixel is taken from elsewhere: a flow of at most epsilon pixels an axis, smoothed by a Gaussian of 3.

    A flow of epsilon is 2 epsilon / side of the image's width, as the calibrated sizes count.
    """

    name = "elastic"
    deviation, reach = 3.0, 12

    def unfit(self, height: int, width: int) -> str | None:
        if min(height, width) > self.reach:
            return None
        return f"elastic needs more than {self.reach} pixels a side, and the images are {height} x {width}"

    def draw(self, image: Tensor, epsilon: float, random: Generator) -> Drawn:
        if why := self.unfit(image.shape[1], image.shape[2]):
            raise UserError(why)
        return _without(epsilon * _signed((2, *image.shape[1:]), random))

    def perturb(self, pixels: Tensor, drawn: Drawn, epsilon: float) -> Tensor:
        height, width = pixels.shape[2:]
        at = torch.arange(-self.reach, self.reach + 1, device=pixels.device)
        bell = torch.exp(-0.5 * (at / self.deviation) ** 2)
        bell = bell / bell.sum()
        flow = F.pad(drawn.parameters, (self.reach,) * 4, mode="reflect")
        flow = F.conv2d(flow, bell.reshape(1, 1, -1, 1).expand(2, 1, -1, 1), groups=2)
        flow = F.conv2d(flow, bell.reshape(1, 1, 1, -1).expand(2, 1, 1, -1), groups=2)
        y, x = torch.meshgrid(
            torch.linspace(-1, 1, height, device=pixels.device),
            torch.linspace(-1, 1, width, device=pixels.device),
            indexing="ij",
        )
        where = torch.stack([x + flow[:, 0] * 2 / width, y + flow[:, 1] * 2 / height], -1)
        return F.grid_sample(pixels, where, align_corners=True, padding_mode="zeros").clamp(0, 1)


def _without(parameters: Tensor) -> Drawn:
    return Drawn(parameters, torch.empty(0))


def _signed(shape: torch.Size | tuple[int, ...], random: Generator) -> Tensor:
    return 2 * torch.rand(shape, generator=random) - 1


def _in_l1_ball(shape: torch.Size | tuple[int, ...], random: Generator) -> Tensor:
    """Uniform in the unit ball of L1: exponentials of random signs over their sum (Barthe et al. 2005)."""
    sizes = torch.empty(math.prod(shape) + 1).exponential_(generator=random)
    signs = torch.randint(0, 2, shape, generator=random) * 2.0 - 1
    return signs * sizes[:-1].reshape(shape) / sizes.sum()


def steepest_l1(grad: Tensor, down: Tensor, up: Tensor, epsilon: float) -> Tensor:
    """Maximizer of ``<grad, delta>`` over ``||delta||_1 <= epsilon`` and ``-down <= delta <= up``, row by row.

    The coordinates of the steepest slopes go to their bounds, one after another, until epsilon is used up.
    """
    slope = grad.flatten(1)
    room = torch.where(slope > 0, up.flatten(1), down.flatten(1))
    order = slope.abs().argsort(1, descending=True)
    room = room.gather(1, order)
    used_before = room.cumsum(1) - room
    taken = torch.minimum(room, (epsilon - used_before).clamp(min=0))
    return torch.zeros_like(slope).scatter(1, order, taken).mul(slope.sign()).reshape(grad.shape)


# Annex K of the JPEG standard (ITU-T T.81), quality 50; rows are vertical frequencies.
_LUMINANCE = (
    *(16, 11, 10, 16, 24, 40, 51, 61),
    *(12, 12, 14, 19, 26, 58, 60, 55),
    *(14, 13, 16, 24, 40, 57, 69, 56),
    *(14, 17, 22, 29, 51, 87, 80, 62),
    *(18, 22, 37, 56, 68, 109, 103, 77),
    *(24, 35, 55, 64, 81, 104, 113, 92),
    *(49, 64, 78, 87, 103, 121, 120, 101),
    *(72, 92, 95, 98, 112, 100, 103, 99),
)
_CHROMINANCE = (
    *(17, 18, 24, 47, 99, 99, 99, 99),
    *(18, 21, 26, 66, 99, 99, 99, 99),
    *(24, 26, 56, 99, 99, 99, 99, 99),
    *(47, 66, 99, 99, 99, 99, 99, 99),
    *(99,) * 32,
)
_TO_YCC = ((0.299, 0.587, 0.114), (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))
_TO_RGB = ((1.0, 0.0, 1.402), (1.0, -0.344136, -0.714136), (1.0, 1.772, 0.0))


def _dct(device: torch.device) -> Tensor:
    """The orthonormal DCT-II of 8 values as a matrix (frequency, place)."""
    k = torch.arange(8, device=device, dtype=torch.float32)
    matrix = torch.cos(math.pi * k[:, None] * (2 * k + 1) / 16) / 2
    matrix[0] /= math.sqrt(2)
    return matrix


def _table(values: tuple[int, ...], device: torch.device) -> Tensor:
    return torch.tensor(values, dtype=torch.float32, device=device).reshape(8, 8)


def jpeg_encode(pixels: Tensor) -> list[Tensor]:
    """Y, Cb and Cr of RGB bytes (B, 3, H, W): coefficients over their quantum, not rounded, (B, blocks, 8, 8) each."""
    matrix = torch.tensor(_TO_YCC, device=pixels.device)
    y, cb, cr = torch.einsum("ij,bjhw->bihw", matrix, pixels).unbind(1)
    planes = [y - 128, F.avg_pool2d(cb[:, None], 2)[:, 0], F.avg_pool2d(cr[:, None], 2)[:, 0]]
    dct, coefficients = _dct(pixels.device), []
    for plane, table in zip(planes, (_LUMINANCE, _CHROMINANCE, _CHROMINANCE), strict=True):
        blocks = plane.unflatten(2, (-1, 8)).unflatten(1, (-1, 8)).transpose(2, 3).flatten(1, 2)
        coefficients.append(dct @ blocks @ dct.T / _table(table, pixels.device))
    return coefficients


def jpeg_decode(coefficients: list[Tensor], size: torch.Size) -> Tensor:
    """RGB (B, 3, H, W), not clipped, from what `jpeg_encode` gives."""
    height, width = size
    dct, planes = _dct(coefficients[0].device), []
    for values, table, part in zip(coefficients, (_LUMINANCE, _CHROMINANCE, _CHROMINANCE), (1, 2, 2), strict=True):
        blocks = dct.T @ (values * _table(table, values.device)) @ dct
        plane = (
            blocks.unflatten(1, (height // part // 8, width // part // 8)).transpose(2, 3).flatten(3, 4).flatten(1, 2)
        )
        planes.append(plane.repeat_interleave(part, 1).repeat_interleave(part, 2))
    ycc = torch.stack([planes[0] + 128, *planes[1:]], 1)
    return torch.einsum("ij,bjhw->bihw", torch.tensor(_TO_RGB, device=ycc.device), ycc)

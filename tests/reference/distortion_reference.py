"""Parts of the unforeseen attacks, computed slowly: blocks of JPEG, the best corner of an L1 ball, diamond-square."""

import numpy as np
from scipy.fft import dctn
from scipy.optimize import linprog

LUMINANCE = np.array(
    """16 11 10 16 24 40 51 61  12 12 14 19 26 58 60 55  14 13 16 24 40 57 69 56  14 17 22 29 51 87 80 62
    18 22 37 56 68 109 103 77  24 35 55 64 81 104 113 92  49 64 78 87 103 121 120 101
    72 92 95 98 112 100 103 99""".split(),
    dtype=float,
).reshape(8, 8)


def luminance_blocks(image: np.ndarray) -> np.ndarray:
    """(blocks, 8, 8): coefficients over their quantum of a colour image (H, W, 3) of bytes, row of blocks by row."""
    y = image @ np.array([0.299, 0.587, 0.114]) - 128
    return np.stack(
        [
            dctn(y[top : top + 8, left : left + 8], norm="ortho") / LUMINANCE
            for top in range(0, len(y), 8)
            for left in range(0, y.shape[1], 8)
        ]
    )


def best_corner(grad: np.ndarray, down: np.ndarray, up: np.ndarray, epsilon: float) -> float:
    """Largest <grad, delta> over the L1 ball and the box, as a linear programme in the two signs' parts."""
    n = len(grad)
    found = linprog(
        np.concatenate([-grad, grad]),
        A_ub=np.ones((1, 2 * n)),
        b_ub=[epsilon],
        bounds=[*((0, b) for b in up), *((0, b) for b in down)],
    )
    assert found.success
    return float(-found.fun)


def diamond_square(random: np.ndarray, smoother: float = 2.0) -> np.ndarray:
    """Height map in [0, 1] of one image, point by point; see `contraverse.attacks.weather.plasma`."""
    size = len(random)
    heights, noise, wide, amount = np.zeros((size, size)), 2 * random - 1, size, 1.0
    while wide >= 2:
        half = wide // 2
        for y in range(half, size, wide):
            for x in range(half, size, wide):
                around = [heights[(y + a) % size, (x + b) % size] for a in (-half, half) for b in (-half, half)]
                heights[y, x] = np.mean(around) + amount * noise[y, x]
        for y in range(0, size, half):
            for x in range((y + half) % wide, size, wide):
                steps = ((-half, 0), (half, 0), (0, -half), (0, half))
                around = [heights[(y + a) % size, (x + b) % size] for a, b in steps]
                heights[y, x] = np.mean(around) + amount * noise[y, x]
        wide, amount = half, amount / smoother
    return (heights - heights.min()) / (heights.max() - heights.min())

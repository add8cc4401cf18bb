"""Gradients by central differences, in float64."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def slope(of: Callable[[Array], float], at: Array, h: float = 1e-5) -> Array:
    """Gradient by central differences."""
    result = np.zeros_like(at)
    for index in np.ndindex(*at.shape):
        ends = []
        for sign in (1, -1):
            moved = at.copy()
            moved[index] += sign * h
            ends.append(of(moved))
        result[index] = (ends[0] - ends[1]) / (2 * h)
    return result

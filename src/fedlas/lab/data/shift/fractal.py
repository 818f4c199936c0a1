"""Clouds: random fields with structure at every scale."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def clouds(size: int, decay: float, random: np.random.RandomState) -> NDArray[np.float64]:
    """A periodic random field by midpoint displacement (the diamond-square algorithm).

    Args:
        size: Height and width.
        decay: Factor by which the displacement shrinks when the grid is halved; a larger one is smoother.
        random: Draws the displacements.

    Returns:
        ``(size, size)`` in [0, 1], one corner of a field whose minimum is 0 and maximum 1.

    Source:
        Fournier, Fussell and Carpenter, "Computer rendering of stochastic models", 1982.
    """
    whole = 1 << max(1, (size - 1).bit_length())
    field = np.zeros((whole, whole))
    step, reach = whole, 1.0
    while step > 1:
        half = step // 2
        # Square step: the center of each cell is the mean of its four corners, plus noise.
        corners = field[::step, ::step]
        square = corners + np.roll(corners, -1, 0)
        square = square + np.roll(square, -1, 1)
        field[half::step, half::step] = square / 4 + random.uniform(-reach, reach, corners.shape)
        # Diamond step: the middle of each edge is the mean of its two ends and the two centers next to it, plus noise.
        middles = field[half::step, half::step]
        across = corners + np.roll(corners, -1, 1) + middles + np.roll(middles, 1, 0)
        down = corners + np.roll(corners, -1, 0) + middles + np.roll(middles, 1, 1)
        field[::step, half::step] = across / 4 + random.uniform(-reach, reach, corners.shape)
        field[half::step, ::step] = down / 4 + random.uniform(-reach, reach, corners.shape)
        step, reach = half, reach / decay
    field -= field.min()
    return field[:size, :size] / max(float(field.max()), np.finfo(np.float64).tiny)

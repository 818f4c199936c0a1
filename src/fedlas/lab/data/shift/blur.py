"""Defocus, glass, motion and zoom blur."""

from __future__ import annotations

from typing import Any

import numpy as np

from fedlas._core.extras import require
from fedlas.lab.data.shift.base import CORRUPTIONS, PAPER, Pixels
from fedlas.lab.data.shift.kernels import convolve, disk, gaussian_blur, streak


@CORRUPTIONS.register(
    "defocus-blur",
    small=((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1)),
    large=((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5)),
    **PAPER,
)
def defocus_blur(image: Pixels, strength: tuple[float, float], random: np.random.RandomState) -> Pixels:  # noqa: ARG001  # one signature for all
    """Lens out of focus: each point becomes a disk; ``strength`` is its radius and softness in pixels."""
    return convolve(image, disk(*strength))


@CORRUPTIONS.register(
    "glass-blur",
    small=((0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2)),
    large=((0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2)),
    **PAPER,
)
def glass_blur(image: Pixels, strength: tuple[float, int, int], random: np.random.RandomState) -> Pixels:
    """Frosted glass: pixels are swapped with pixels nearby, between two Gaussian blurs.

    ``strength`` is the sigma of the blurs, the largest distance, and how often each pixel is swapped.
    """
    sigma, distance, rounds = strength
    height, width, channels = image.shape
    source = list(range(height * width))  # a list, since access to single elements of an array is slow
    rows = range(height - distance - 1, distance - 1, -1)
    columns = range(width - distance - 1, distance - 1, -1)
    for _ in range(rounds):
        shifts = random.randint(-distance, distance, (2, height, width))
        partner = (shifts[0] * width + shifts[1]).ravel().tolist()
        for row in rows:
            for here in range(row * width + columns.start, row * width + columns.stop, -1):
                there = here + partner[here]
                source[here], source[there] = source[there], source[here]
    # The paper blurs before and after the permutation.
    blurred = gaussian_blur(image, sigma).reshape(-1, channels)
    return gaussian_blur(blurred[np.array(source)].reshape(image.shape), sigma)


@CORRUPTIONS.register(
    "motion-blur",
    small=((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5)),
    large=((10, 3), (15, 5), (15, 8), (15, 12), (20, 15)),
    **PAPER,
)
def motion_blur(image: Pixels, strength: tuple[float, float], random: np.random.RandomState) -> Pixels:
    """Camera motion within 45 degrees of level; ``strength`` is half the length and sigma of its trace, in pixels."""
    return convolve(image, streak(*strength, degrees=random.uniform(-45, 45)))


@CORRUPTIONS.register(
    "zoom-blur",
    small=((1.05, 0.01), (1.10, 0.01), (1.15, 0.01), (1.20, 0.01), (1.25, 0.01)),
    large=((1.10, 0.01), (1.15, 0.01), (1.20, 0.02), (1.25, 0.02), (1.30, 0.03)),
    **PAPER,
)
def zoom_blur(image: Pixels, strength: tuple[float, float], random: np.random.RandomState) -> Pixels:  # noqa: ARG001  # one signature for all
    """Camera that approaches: mean of the image and enlarged ones; ``strength`` is the largest factor and the step."""
    last, step = strength
    factors = np.arange(1, last + step / 2, step)
    return (image + sum(zoomed(image, float(factor)) for factor in factors)) / (len(factors) + 1)


def zoomed(image: Pixels, factor: float) -> Pixels:
    """``image`` enlarged around its center by ``factor`` and cut to its size."""
    ndimage: Any = require("scipy.ndimage", extra="data")
    center = (np.array(image.shape) - 1) / 2
    scale = np.array([1 / factor, 1 / factor, 1])
    larger: Pixels = ndimage.affine_transform(image, scale, offset=center - scale * center, order=1, mode="nearest")
    return larger

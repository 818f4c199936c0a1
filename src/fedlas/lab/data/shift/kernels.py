"""Convolution, and the kernels of defocus and motion blur."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedlas._core.extras import require
from fedlas.lab.data.shift.base import Pixels


def convolve(image: Pixels, kernel: NDArray[np.float64]) -> Pixels:
    """Each channel of ``image`` convolved with an odd-sized ``kernel``, the image mirrored at its border."""
    signal: Any = require("scipy.signal", extra="data")
    rows, columns = kernel.shape[0] // 2, kernel.shape[1] // 2
    padded = np.pad(image, ((rows, rows), (columns, columns), (0, 0)), mode="symmetric")
    blurred: Pixels = signal.fftconvolve(padded, kernel[:, :, None], mode="valid", axes=(0, 1))
    return blurred


def gaussian_blur(image: Pixels, sigma: float) -> Pixels:
    """Each channel of ``image`` blurred by a Gaussian of ``sigma`` pixels."""
    blurred: Pixels = require("scipy.ndimage", extra="data").gaussian_filter(image, (sigma, sigma, 0), mode="nearest")
    return blurred


def disk(radius: float, softness: float) -> NDArray[np.float64]:
    """A disk of ``radius`` pixels whose edge is softened by a Gaussian of ``softness`` pixels; sums to 1."""
    reach = int(np.ceil(radius)) + 2
    rows, columns = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    inside = (rows**2 + columns**2 <= radius**2).astype(np.float64)
    soft: NDArray[np.float64] = require("scipy.ndimage", extra="data").gaussian_filter(inside, softness, truncate=3.0)
    return soft / soft.sum()


def streak(radius: float, sigma: float, degrees: float) -> NDArray[np.float64]:
    """A half Gaussian of ``2 * radius + 1`` points along a line from the center; sums to 1.

    Args:
        radius: Half the length of the line in pixels.
        sigma: Standard deviation along the line in pixels.
        degrees: Direction; 0 is to the right, 90 down.
    """
    steps = np.arange(2 * int(radius) + 1)
    weights = np.exp(-(steps**2) / (2 * sigma**2))
    reach = 2 * int(radius) + 1
    kernel = np.zeros((2 * reach + 1, 2 * reach + 1))
    angle = np.deg2rad(degrees)
    places = reach + steps * np.sin(angle), reach + steps * np.cos(angle)
    low = tuple(np.floor(place).astype(int) for place in places)
    for down in (0, 1):  # bilinear: each point is divided among the four pixels around it
        for right in (0, 1):
            part = np.abs(1 - down - (places[0] - low[0])) * np.abs(1 - right - (places[1] - low[1]))
            np.add.at(kernel, (low[0] + down, low[1] + right), weights * part)
    return kernel / kernel.sum()

"""Contrast, elastic transform, pixelation and JPEG compression."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import numpy as np

from fedlas._core.extras import require
from fedlas.lab.data.shift.base import CORRUPTIONS, PAPER, Pixels


@CORRUPTIONS.register("contrast", small=(0.75, 0.5, 0.4, 0.3, 0.15), large=(0.4, 0.3, 0.2, 0.1, 0.05), **PAPER)
def contrast(image: Pixels, keep: float, random: np.random.RandomState) -> Pixels:  # noqa: ARG001  # one signature for all
    """Lower contrast: the distance from each channel's mean shrinks to the share ``keep``."""
    mean = image.mean(axis=(0, 1), keepdims=True)
    return (image - mean) * keep + mean


@CORRUPTIONS.register(
    "elastic-transform",
    small=((0, 0, 0.08), (0.05, 0.2, 0.07), (0.08, 0.06, 0.06), (0.1, 0.04, 0.05), (0.1, 0.03, 0.03)),
    large=((2, 0.7, 0.1), (2, 0.08, 0.2), (0.05, 0.01, 0.02), (0.07, 0.01, 0.02), (0.12, 0.01, 0.02)),
    **PAPER,
)
def elastic_transform(image: Pixels, strength: tuple[float, float, float], random: np.random.RandomState) -> Pixels:
    """Elastic deformation: a random affine map, then smooth random displacements.

    ``strength`` holds, as fractions of the image's height, the size of the displacements, the sigma that smooths them,
    and how far the affine map moves three points.
    """
    ndimage: Any = require("scipy.ndimage", extra="data")
    height, width, channels = image.shape
    amount, sigma, reach = (height * value for value in strength)
    rows, columns = np.mgrid[0:height, 0:width].astype(np.float64)
    # Smoothed noise moves each pixel a little; the affine map below moves the whole image.
    for place in (rows, columns):
        place += amount * ndimage.gaussian_filter(
            random.uniform(-1, 1, (height, width)), sigma, mode="reflect", truncate=3
        )
    center, arm = np.array([height // 2, width // 2]), min(height, width) // 3
    points = center + arm * np.array([[1, 1], [1, -1], [-1, -1]])
    moved = points + random.uniform(-reach, reach, points.shape)
    # Resampling asks where each pixel of the result comes from, so this is the inverse affine map.
    back, *_ = np.linalg.lstsq(np.column_stack([moved, np.ones(3)]), points, rcond=None)
    flat = np.stack([rows.ravel(), columns.ravel(), np.ones(rows.size)], axis=1) @ back
    sampled = [
        ndimage.map_coordinates(image[:, :, channel], flat.T, order=1, mode="reflect") for channel in range(channels)
    ]
    return np.stack(sampled, axis=1).reshape(image.shape)


@CORRUPTIONS.register("pixelate", small=(0.95, 0.9, 0.85, 0.75, 0.65), large=(0.6, 0.5, 0.4, 0.3, 0.25), **PAPER)
def pixelate(image: Pixels, share: float, random: np.random.RandomState) -> Pixels:  # noqa: ARG001  # one signature for all
    """Lower resolution: height and width are reduced to ``share`` by averaging and enlarged again."""
    box = require("PIL.Image", extra="data").Resampling.BOX
    height, width = image.shape[:2]
    reduced = _as_pil(image).resize((max(1, int(width * share)), max(1, int(height * share))), box)
    return _pixels(reduced.resize((width, height), box), image)


@CORRUPTIONS.register("jpeg-compression", small=(80, 65, 58, 50, 40), large=(25, 18, 15, 10, 7), **PAPER)
def jpeg_compression(image: Pixels, quality: int, random: np.random.RandomState) -> Pixels:  # noqa: ARG001  # one signature for all
    """JPEG compression of the given quality, 1 to 95."""
    buffer = BytesIO()
    _as_pil(image).save(buffer, "JPEG", quality=quality)
    with require("PIL.Image", extra="data").open(buffer) as decoded:
        return _pixels(decoded, image)


def _as_pil(image: Pixels) -> Any:
    values = np.rint(image * 255).astype(np.uint8)
    return require("PIL.Image", extra="data").fromarray(values[:, :, 0] if image.shape[2] == 1 else values)


def _pixels(decoded: Any, like: Pixels) -> Pixels:
    return np.asarray(decoded, dtype=np.float64).reshape(like.shape) / 255

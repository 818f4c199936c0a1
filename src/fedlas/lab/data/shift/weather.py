"""Snow, frost, fog and brightness."""

from __future__ import annotations

import numpy as np

from fedlas.lab.data.shift.base import CORRUPTIONS, PAPER, Pixels
from fedlas.lab.data.shift.blur import zoomed
from fedlas.lab.data.shift.fractal import clouds
from fedlas.lab.data.shift.kernels import convolve, streak

_GRAY = np.array([0.299, 0.587, 0.114])
_ICE = np.array([0.86, 0.93, 1.0])


@CORRUPTIONS.register(
    "snow",
    small=(
        (0.1, 0.2, 1, 0.6, 8, 3, 0.95),
        (0.1, 0.2, 1, 0.5, 10, 4, 0.9),
        (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
        (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85),
        (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
    ),
    large=(
        (0.1, 0.3, 3, 0.5, 10, 4, 0.8),
        (0.2, 0.3, 2, 0.5, 12, 4, 0.7),
        (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
        (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
        (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
    ),
    **PAPER,
)
def snow(image: Pixels, strength: tuple[float, ...], random: np.random.RandomState) -> Pixels:
    """Snowflakes driven by wind in front of a pale scene.

    ``strength`` holds mean and standard deviation of the flakes' brightness, their enlargement, the brightness below
    which there is no flake, half the length and sigma of their trace in pixels, and the share of color that is kept.
    """
    mean, deviation, enlargement, level, radius, sigma, keep = strength
    flakes = zoomed(random.normal(mean, deviation, image.shape[:2])[:, :, None], enlargement)
    flakes = np.clip(np.where(flakes < level, 0, flakes), 0, 1)
    flakes = convolve(flakes, streak(radius, sigma, degrees=random.uniform(-135, -45)))
    # A pale scene behind the flakes; the flakes are added twice, the second time turned by 180 degrees.
    gray = image @ _GRAY[:, None] if image.shape[2] == 3 else image
    pale = keep * image + (1 - keep) * np.maximum(image, gray * 1.5 + 0.5)
    return pale + flakes + np.rot90(flakes, 2)


@CORRUPTIONS.register(
    "frost",
    small=((1, 0.2), (1, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45)),
    large=((1, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75)),
    **PAPER,
)
def frost(image: Pixels, strength: tuple[float, float], random: np.random.RandomState) -> Pixels:
    """Ice crystals on a window; ``strength`` holds the weights of scene and ice.

    The paper overlays photographs of frost. Here the ice is computed, so that nothing needs to be downloaded: bluish
    white ridges of two random fields, with a thickness that varies.
    """
    size = max(image.shape[:2])
    ridges = 1 - np.abs(2 * clouds(size, 1.6, random) - 1)
    needles = 1 - np.abs(2 * clouds(size, 1.25, random) - 1)
    cover = clouds(size, 2.5, random)
    ice = np.clip(0.55 * ridges**4 + 0.45 * needles**3 + 0.5 * cover, 0, 1)[: image.shape[0], : image.shape[1], None]
    tint = _ICE if image.shape[2] == 3 else np.array([_ICE @ _GRAY])
    weight, ice_weight = strength
    return weight * image + ice_weight * ice * tint


@CORRUPTIONS.register(
    "fog",
    small=((0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75)),
    large=((1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4)),
    **PAPER,
)
def fog(image: Pixels, strength: tuple[float, float], random: np.random.RandomState) -> Pixels:
    """Fog: a random field is added and the brightness kept; ``strength`` is its amount and smoothness."""
    amount, decay = strength
    # The last factor keeps the result within the brightness of the scene.
    brightest = float(image.max())
    field = clouds(max(image.shape[:2]), decay, random)[: image.shape[0], : image.shape[1], None]
    return (image + amount * field) * brightest / (brightest + amount)


@CORRUPTIONS.register("brightness", small=(0.05, 0.1, 0.15, 0.2, 0.3), large=(0.1, 0.2, 0.3, 0.4, 0.5), **PAPER)
def brightness(image: Pixels, more: float, random: np.random.RandomState) -> Pixels:  # noqa: ARG001  # one signature for all
    """Brightness: the value in HSV (the largest channel) rises by ``more``; hue and saturation stay."""
    value = image.max(axis=2, keepdims=True)
    lighter = np.minimum(value + more, 1)
    return np.where(value > 0, image * lighter / np.where(value > 0, value, 1), lighter)

"""Gaussian, shot and impulse noise."""

from __future__ import annotations

import numpy as np

from fedlas.lab.data.shift.base import CORRUPTIONS, PAPER, Pixels


@CORRUPTIONS.register(
    "gaussian-noise", small=(0.04, 0.06, 0.08, 0.09, 0.10), large=(0.08, 0.12, 0.18, 0.26, 0.38), **PAPER
)
def gaussian_noise(image: Pixels, deviation: float, random: np.random.RandomState) -> Pixels:
    """Normal noise of the given standard deviation (white is 1) on every channel of every pixel."""
    return image + random.normal(scale=deviation, size=image.shape)


@CORRUPTIONS.register("shot-noise", small=(500, 250, 100, 75, 50), large=(60, 25, 12, 5, 3), **PAPER)
def shot_noise(image: Pixels, photons: float, random: np.random.RandomState) -> Pixels:
    """Poisson noise of a sensor that counts ``photons`` where the image is white."""
    return random.poisson(image * photons) / photons


@CORRUPTIONS.register(
    "impulse-noise", small=(0.01, 0.02, 0.03, 0.05, 0.07), large=(0.03, 0.06, 0.09, 0.17, 0.27), **PAPER
)
def impulse_noise(image: Pixels, share: float, random: np.random.RandomState) -> Pixels:
    """Salt and pepper: a share of the values becomes 0 or 1, each with probability 1/2."""
    hit = random.random_sample(image.shape) < share
    return np.where(hit, (random.random_sample(image.shape) < 0.5).astype(np.float64), image)

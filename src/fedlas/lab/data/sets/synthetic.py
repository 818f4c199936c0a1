"""Synthetic images with known label probabilities, so that the true calibration error is known too."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from fedlas._core.check import check_count, check_number
from fedlas._core.streams import Purpose, stream
from fedlas.lab.data.base import DATASETS, Images, Source, no_root


@DATASETS.register("synthetic")
def load_synthetic(
    root: str | None = None,
    *,
    num_classes: int = 10,
    num_train: int = 4000,
    num_test: int = 2000,
    image_size: int = 8,
    sharpness: float = 4.0,
    seed: int = 0,
) -> Source:
    """Random gray images with labels drawn from known probabilities ``softmax(sharpness * W x)``.

    ``x`` holds the pixels, uniform on 0..255, scaled to mean 0 and variance 1; the rows of ``W`` are random directions
    of length 1. The probabilities are computed from the stored uint8 pixels, so they are exact for what a model sees.

    Args:
        root: Must be None: the data set needs no files.
        num_classes: Number of classes, at least 2.
        num_train: Training images, at least ``num_classes``.
        num_test: Test images.
        image_size: Height and width in pixels; the function to learn has ``image_size ** 2`` inputs.
        sharpness: Standard deviation of the true logits, >= 0: 0 makes every class equally likely, 10 leaves little
            doubt. With the default the best possible accuracy is about 0.74.
        seed: Draws ``W``, images and labels.

    Returns:
        A source whose parts carry ``label_probs (N, C)``.

    Raises:
        InputError: For options out of range, or if a class happens to get no training image.

    Example:
        >>> load_synthetic(num_classes=2, num_train=10, num_test=5).test.label_probs.shape
        torch.Size([5, 2])
    """
    no_root("synthetic", root)
    check_count("synthetic", "num_classes", num_classes, low=2)
    check_count("synthetic", "num_train", num_train, low=num_classes)
    check_count("synthetic", "num_test", num_test)
    check_count("synthetic", "image_size", image_size)
    check_number("synthetic", "sharpness", sharpness, low=0)
    random = stream(Purpose.SYNTHETIC, check_count("synthetic", "seed", seed, low=0))
    directions = random.standard_normal((image_size**2, num_classes))
    directions *= sharpness / np.linalg.norm(directions, axis=0)
    train, test = (_draw(random, count, image_size, directions) for count in (num_train, num_test))
    return Source("synthetic", train, test, tuple(str(label) for label in range(num_classes)))


def _draw(random: np.random.RandomState, count: int, image_size: int, directions: NDArray[np.float64]) -> Images:
    pixels = random.randint(0, 256, (count, image_size**2)).astype(np.uint8)
    # 255 / 2 and sqrt((256^2 - 1) / 12) are the mean and standard deviation of a uniform whole number in 0..255.
    logits = ((pixels - 127.5) / np.sqrt((256**2 - 1) / 12)) @ directions
    probs = np.exp(logits - logits.max(axis=1, keepdims=True))
    probs /= probs.sum(axis=1, keepdims=True)
    below = probs.cumsum(axis=1)[:, :-1]  # without the last column: its rounding error must not create a class C
    target = (random.random_sample((count, 1)) >= below).sum(axis=1)
    images = torch.from_numpy(pixels.reshape(count, 1, image_size, image_size))
    return Images(images, torch.from_numpy(target.astype(np.int64)), torch.from_numpy(probs.astype(np.float32)))

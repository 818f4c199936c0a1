"""Data sets without files: scikit-learn's digits, and synthetic images with known label probabilities."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from fedlas._core.check import InputError, check_count, check_number
from fedlas._core.extras import require
from fedlas._core.streams import Purpose, seeded_generator
from fedlas.lab.data.base import DATASETS, Images, Source
from fedlas.lab.data.splits import hold_out

_NUM_IMAGES = 1797
_NUM_CLASSES = 10
_MAX_NUMBERS = 200_000_000
"""Most numbers in a synthetic data set, since an untrusted recipe may ask for any."""


@DATASETS.register(
    "digits", paper="Alpaydin and Kaynak 1998", url="https://doi.org/10.24432/C50P49"
)
def load_digits(*, num_test: int = 600) -> Source:
    """1,797 gray digits of 8 x 8 pixels, embedded in scikit-learn: 1,197 to train, 600 to test.

    Args:
        num_test: Size of the test part; the rest is the training part. Both need an image of every class.

    Returns:
        A source with ten classes; gray levels 0..16 are scaled to 0..255. It has no flips and no crops, which would
        change the digits.

    Note:
        scikit-learn has no official test part; this one is stratified and the same for every seed.
    """
    size = check_count("num_test", num_test, low=_NUM_CLASSES)
    if size > _NUM_IMAGES - _NUM_CLASSES:
        raise InputError(
            f"num_test must be at most {_NUM_IMAGES - _NUM_CLASSES} of {_NUM_IMAGES}",
            num_test,
            "Leave an image of each class to train on.",
        )
    bunch = require("sklearn.datasets", extra="bench").load_digits()
    images = torch.from_numpy(np.rint(bunch.images * (255 / 16)).astype(np.uint8)[:, None])
    target = bunch.target.astype(np.int64)
    classes = tuple(str(digit) for digit in range(_NUM_CLASSES))
    images_with_labels = Images(images, torch.from_numpy(target))
    rows = seeded_generator(Purpose.FIXED_TEST)
    train, test = map(torch.from_numpy, hold_out(target, size, classes, rows))
    return Source("digits", images_with_labels.take(train), images_with_labels.take(test), classes)


@DATASETS.register("synthetic")
def load_synthetic(
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
    check_count("num_classes", num_classes, low=2)
    check_count("num_train", num_train, low=num_classes)
    check_count("num_test", num_test)
    check_count("image_size", image_size)
    if (size := (num_train + num_test) * (image_size**2 + num_classes)) > _MAX_NUMBERS:
        raise InputError(
            f"the data set must have at most {_MAX_NUMBERS:,} pixels and label probabilities",
            f"{size:,}",
            "Choose fewer or smaller images.",
        )
    check_number("sharpness", sharpness, low=0)
    random = seeded_generator(Purpose.SYNTHETIC, check_count("seed", seed, low=0))
    directions = random.standard_normal((image_size**2, num_classes))
    directions *= sharpness / np.linalg.norm(directions, axis=0)
    train, test = (
        _draw_images(random, count, image_size, directions) for count in (num_train, num_test)
    )
    return Source("synthetic", train, test, tuple(str(label) for label in range(num_classes)))


def _draw_images(
    random: np.random.RandomState, count: int, image_size: int, directions: NDArray[np.float64]
) -> Images:
    """Return random images with labels drawn from their true class probabilities."""
    pixels = random.randint(0, 256, (count, image_size**2)).astype(np.uint8)
    # 255 / 2 and sqrt((256^2 - 1) / 12) are the mean and standard deviation of a uniform whole number in 0..255.
    logits = ((pixels - 127.5) / np.sqrt((256**2 - 1) / 12)) @ directions
    probs = np.exp(logits - logits.max(axis=1, keepdims=True))
    probs /= probs.sum(axis=1, keepdims=True)
    # without the last column: its rounding error must not create a class C
    below = probs.cumsum(axis=1)[:, :-1]
    target = (random.random_sample((count, 1)) >= below).sum(axis=1)
    images = torch.from_numpy(pixels.reshape(count, 1, image_size, image_size))
    return Images(
        images,
        torch.from_numpy(target.astype(np.int64)),
        torch.from_numpy(probs.astype(np.float32)),
    )
